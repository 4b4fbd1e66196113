"""Calls of an OpenAI-compatible endpoint that may fail in every way: time-outs, retries, back-off, errors in words.

    wait before try k = min(60, backoff · 2^k) · u,   u from 1/2 to 1 by (seed, question, k), and at least Retry-After

The service's key is read from the environment at each call and kept nowhere: not in this object, its repr, a message or
a file. Redirections are not followed, since they would carry the key elsewhere.
"""

import hashlib
import http.client
import json
import os
import random
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import Message
from email.utils import parsedate_to_datetime
from threading import Event
from typing import IO, Any, Literal
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, ProxyHandler, Request, build_opener

from rewards.errors import RewardError
from rewards.judge_questions import AnswerError, Question, Verdict

LONGEST_WAIT = 60.0  # seconds between two tries, whatever a server asks for
_LARGEST = 4 << 20  # bytes of an answer
_SETUP = {301, 302, 303, 307, 308, 401, 402, 404, 405}  # the same for every call: address, key, account, model
_PASSING = {408, 409, 425, 429}
_SECRET = 8  # letters; servers that want none are often given "EMPTY" or "x", which other words may hold
_LOCAL = {"localhost", "127.0.0.1", "::1"}


class NoVerdictError(Exception):
    """A question that got no verdict.

    Attributes:
        kind: "setup" if no other question can get one either, "refusal" if the judge declined, else "failure".
    """

    def __init__(self, kind: Literal["setup", "refusal", "failure"], said: str) -> None:
        super().__init__(said)
        self.kind = kind


class _PassingError(Exception):
    """Something that another try may cure; `wait` is what the server asks for, in seconds."""

    def __init__(self, said: str, wait: float = 0.0) -> None:
        super().__init__(said)
        self.wait = wait


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, req: Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str) -> None:
        """Follow nothing."""


@dataclass(frozen=True)
class Endpoint:
    """A model behind an address that speaks the protocol of OpenAI's chat completions.

    Attributes:
        url: Base address, such as "http://localhost:8000/v1".
        model: The model's name there.
        key_env: Environment variable that holds the key; none is sent if it is empty or unset.
        timeout: Seconds for each try.
        tries: Of one question, at least 1.
        backoff: Seconds to wait before the second try, at most.
        temperature: Of the answers; None leaves it to the server.
        seed: Of the answers, as far as the server heeds it, and of the waits.
        structured: Whether the server is sent the answer's JSON schema; otherwise only the text asks for it.
    """

    url: str
    model: str
    key_env: str
    timeout: float = 60.0
    tries: int = 5
    backoff: float = 1.0
    temperature: float | None = 0.0
    seed: int = 0
    structured: bool = True

    def __post_init__(self) -> None:
        """Refuse an address that is none, or that holds a secret, and numbers that make no sense."""
        if not _is_base(self.url):
            raise RewardError(
                "The judge's url must be the base address alone, such as http://localhost:8000/v1, without user, "
                "password or query; put the key into an environment variable."
            )
        if self.timeout <= 0 or self.tries < 1 or self.backoff < 0:
            raise RewardError(
                f"Got timeout={self.timeout}, tries={self.tries}, backoff={self.backoff}; expected a time-out above 0, "
                "at least one try and a wait of at least 0."
            )
        self._headers()

    @property
    def identity(self) -> str:
        """All of it that verdicts depend on."""
        return json.dumps([self.url, self.model, self.temperature, self.seed, self.structured])

    @property
    def has_key(self) -> bool:
        """Whether the environment holds one."""
        return bool(self._secret())

    def key(self, question: Question, repeat: int = 0) -> str:
        """Hash of all that a verdict depends on, for the cache."""
        parts = [self.identity, repeat, question.verdict, question.system, question.text]
        digest = hashlib.sha256(json.dumps(parts).encode())
        for png in question.pngs:
            digest.update(hashlib.sha256(png).digest())
        return digest.hexdigest()

    def ask(self, question: Question, *, repeat: int = 0, stop: Event) -> Verdict:
        """The verdict, after as many tries as it takes.

        Args:
            question: What to ask.
            repeat: Added to the seed.
            stop: Ends the waiting between tries.

        Raises:
            NoVerdictError: There is none; the message says why.
        """
        name = self.key(question, repeat)
        said = ""
        for attempt in range(self.tries):
            try:
                return question.read(self._completion(question, self.seed + repeat))
            except AnswerError as error:
                said, wait = f"the answer {error}", 0.0
            except _PassingError as error:
                said, wait = str(error), error.wait
            if attempt + 1 < self.tries and stop.wait(self._delay(name, attempt, wait)):
                break
        raise NoVerdictError("failure", f"{said}, in {attempt + 1} tries")

    def _delay(self, name: str, attempt: int, asked: float) -> float:
        """Seconds to wait before the next try."""
        jitter: float = random.Random(f"{self.seed} {name} {attempt}").uniform(0.5, 1.0)
        wait = self.backoff * 2.0**attempt * jitter
        return min(LONGEST_WAIT, max(wait, asked))

    def _completion(self, question: Question, seed: int) -> str:
        """The text that the model wrote."""
        payload: dict[str, Any] = {"model": self.model, "messages": question.messages, "seed": seed}
        if self.temperature is not None:
            payload["temperature"] = self.temperature
        if self.structured:
            schema = {"name": "verdict", "strict": True, "schema": question.schema}
            payload["response_format"] = {"type": "json_schema", "json_schema": schema}
        return _content(self._post(json.dumps(payload).encode()))

    def _post(self, body: bytes) -> bytes:
        opener = build_opener(_NoRedirect, *([ProxyHandler({})] if urlsplit(self.url).hostname in _LOCAL else []))
        request = Request(f"{self.url.rstrip('/')}/chat/completions", body, self._headers())
        deadline = time.monotonic() + self.timeout
        try:
            with opener.open(request, timeout=self.timeout) as response:
                return self._without_key(_whole(response, deadline))
        except HTTPError as error:
            with error:
                raise self._refused(error, deadline) from None
        except (OSError, UnicodeError, http.client.HTTPException) as error:  # also time-outs and cut connections
            reason = getattr(error, "reason", error)
            raise _PassingError(_line(f"no answer ({type(reason).__name__}: {reason})")) from None

    def _refused(self, error: HTTPError, deadline: float) -> Exception:
        """What an answer with an error's status means."""
        try:
            body = self._without_key(_whole(error, deadline))
        except (OSError, http.client.HTTPException, _PassingError):
            body = b""
        said = _line(f"HTTP {error.code}: {_message(body) or error.reason}")
        if error.code in _PASSING or error.code >= 500:
            return _PassingError(said, retry_after(error.headers.get("Retry-After")))
        return NoVerdictError("setup" if error.code in _SETUP else "failure", said)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": "bon-search"}
        key = self._secret()
        if not (key.isascii() and key.isprintable()):  # the library would put the key into its own message
            raise RewardError(f"The environment variable {self.key_env} holds no key: it has letters that no key has.")
        return headers | ({"Authorization": f"Bearer {key}"} if key else {})

    def _secret(self) -> str:
        return os.environ.get(self.key_env, "").strip() if self.key_env else ""

    def _without_key(self, body: bytes) -> bytes:
        """A server's words without the key, should it quote it; keys too short to be secrets are left alone."""
        key = self._secret()
        for written in {key, key.replace("/", r"\/")} if len(key) >= _SECRET else ():
            body = body.replace(written.encode(), b"[key]")
        return body


def _is_base(url: str) -> bool:
    """Whether it is an address without a secret in it."""
    try:
        parts = urlsplit(url)
        if parts.port == 0 or not (url.isascii() and url.isprintable()) or " " in url:
            return False
    except ValueError:
        return False
    host = parts.scheme in ("http", "https") and bool(parts.hostname)
    return host and not parts.query and not parts.fragment and parts.username is None


def retry_after(header: str | None) -> float:
    """Seconds that a Retry-After header asks for, given in seconds or as a date; 0 if it says nothing readable."""
    if header is None:
        return 0.0
    try:
        return max(0.0, float(header)) if header.strip().isdigit() else _until(parsedate_to_datetime(header))
    except ValueError:
        return 0.0


def _until(date: datetime) -> float:
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)
    return max(0.0, (aware - datetime.now(UTC)).total_seconds())


def _whole(response: Any, deadline: float) -> bytes:  # noqa: ANN401 - HTTPResponse and HTTPError have no common type
    """The body, unless it drips in after the deadline or never ends."""
    parts: list[bytes] = []
    while part := response.read1(1 << 16) if hasattr(response, "read1") else response.read(1 << 16):
        parts.append(part)
        if time.monotonic() > deadline:
            raise _PassingError("the answer came too slowly")
        if sum(map(len, parts)) > _LARGEST:
            raise _PassingError("the answer has no end")
    return b"".join(parts)


def _content(body: bytes) -> str:
    """What the model wrote, from the body of a completion."""
    try:
        choice = json.loads(body)["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError) as error:
        raise _PassingError(f"the body is no completion: {body[:80]!r}") from error
    if refusal or choice.get("finish_reason") == "content_filter":
        raise NoVerdictError("refusal", _line(f"the judge refused: {refusal or 'content filter'}"))
    if not isinstance(content, str):
        raise _PassingError("the completion has no text")
    return content


def _message(body: bytes) -> str:
    """The words in an error's body."""
    try:
        error = json.loads(body)["error"]
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:200].decode(errors="replace")


def _line(said: str) -> str:
    """A message in one line of bearable length."""
    return " ".join(said.split())[:200]
