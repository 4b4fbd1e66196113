"""A model behind an OpenAI-compatible endpoint as a reward: `judge(model=…, url=…)` and `judge:pairwise(model=…)`.

Pointwise, each picture gets a score from 0 to 10, with many ties. Pairwise, each two pictures of a prompt are shown in
both orders, so that a liking for the first place cancels, and the reward only compares: P[i, j] is the mean of both
answers. That takes n (n − 1) calls for n candidates, 240 for 16, where pointwise takes n.

A call that fails costs no run. Pointwise, the picture gets 0, the lowest score there is, so that it never wins by an
accident; pairwise, both orders of the pair count as a tie. A warning says how many and why, and what failed is asked
again the next time, since only verdicts are cached. The exception is an endpoint that never yet gave a verdict: if its
address, key or model is refused, or if two calls fail and none succeeds, the reward stops with a sentence.

Only the picture and its prompt leave this machine, to the address that you name, under that service's terms.

Reference: Zheng et al., Judging LLM-as-a-judge with MT-Bench and Chatbot Arena, NeurIPS 2023 (both orders: 3.4).
"""

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from rewards.base import ImagesLike, Scores, check_scores
from rewards.errors import RewardError
from rewards.fingerprints import fingerprint
from rewards.judge_cache import JudgeCache, default_folder
from rewards.judge_client import Endpoint
from rewards.judge_court import Court
from rewards.judge_questions import CRITERIA, LOWEST, Exhibit, pairwise, pointwise
from rewards.llava.pictures import as_pictures
from rewards.nearest import check_variant
from rewards.preferences import rank
from rewards.vision import check_texts

OPENAI = "https://api.openai.com/v1"
_WORDS, _BITS = 5, 24  # a picture's digest as float32 numbers, which hold whole numbers of 24 bits exactly


class Judge:
    """Scores from 0 to 10, one question for each picture.

    Args:
        court: Answers.
        criteria: What to judge by, in words.
        edge: Larger pictures are shrunk until their longer side has so many pixels.
    """

    name = "judge"
    absolute = True
    differentiable = False
    keeps_answers = True  # and no others: the 0 of a failed call is to be asked again

    def __init__(self, court: Court, *, criteria: str = CRITERIA, edge: int = 1024) -> None:
        self._court, self._criteria, self._edge = court, criteria, edge
        self.revision = fingerprint((), f"{court.settings} {criteria} {edge}")

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores (N,) float32; 0 where the call failed.

        Raises:
            RewardError: Wrong pictures or prompts, or an endpoint that never answers.
        """
        questions = [pointwise(exhibit, self._criteria) for exhibit in exhibits(images, prompts, self._edge)]
        values = self._court.verdicts(questions)
        scores = torch.tensor([LOWEST if value is None else value for value in values])
        return check_scores(scores, self.name, len(prompts))


class PairwiseJudge:
    """Preferences between pictures of one prompt, in both orders; `rewards.preferences.Compares`.

    What is kept of a picture is a hash, 5 numbers of 24 bits, under which the cache holds the picture and its prompt.

    Args:
        court: Answers.
        criteria: What to judge by, in words.
        edge: Larger pictures are shrunk until their longer side has so many pixels.
    """

    name = "judge:pairwise"
    absolute = False
    differentiable = False
    keeps_answers = True

    def __init__(self, court: Court, *, criteria: str = CRITERIA, edge: int = 1024) -> None:
        self._court, self._criteria, self._edge = court, criteria, edge
        self.revision = fingerprint((), f"pairwise {court.settings} {criteria} {edge}")

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Mean probability (N,) with which each picture is preferred to the others of its prompt; alone, one half."""
        outputs = self.heads(images, prompts)  # (N, 5)
        scores = torch.zeros(len(prompts))
        for prompt in dict.fromkeys(prompts):
            places = [place for place, other in enumerate(prompts) if other == prompt]
            scores[places] = rank(self.chances(outputs[places])).scores.float()
        return check_scores(scores, self.name, len(prompts))

    def heads(self, images: ImagesLike, prompts: Sequence[str]) -> Tensor:
        """What stands for N pictures with their prompts, (N, 5) float32."""
        rows = []
        for exhibit in exhibits(images, prompts, self._edge):
            digest = exhibit.digest[: _WORDS * _BITS // 4]
            self._court.cache.keep_exhibit(digest, exhibit)
            rows.append([int(digest[k : k + _BITS // 4], 16) for k in range(0, len(digest), _BITS // 4)])
        return torch.tensor(rows, dtype=torch.float32)

    def chances(self, outputs: Tensor, others: Tensor | None = None) -> Tensor:
        """P[i, j], the share of answers in which i is preferred to j of the others, (N, M); a tie counts half.

        Raises:
            RewardError: Pictures of several prompts, one that the cache does not hold, or an endpoint that never
                answers.
        """
        rows, columns = _digests(outputs), _digests(outputs if others is None else others)
        pairs = {(min(one, two), max(one, two)) for one in rows for two in columns if one != two}
        chances = self._compared(sorted(pairs))
        matrix = [
            [0.5 if one == two else chances[one, two] if one < two else 1 - chances[two, one] for two in columns]
            for one in rows
        ]
        return torch.tensor(matrix)  # (N, M)

    def _compared(self, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], float]:
        """How often the first of each pair is preferred."""
        seen = {digest: self._seen(digest) for pair in pairs for digest in pair}
        questions = []
        for one, two in pairs:
            if seen[one].prompt != seen[two].prompt:
                raise RewardError("Got pictures of several prompts to compare; expected pictures of one prompt.")
            questions += [
                pairwise(seen[one], seen[two], self._criteria),
                pairwise(seen[two], seen[one], self._criteria),
            ]
        values = self._court.verdicts(questions)
        both = zip(values[0::2], values[1::2], strict=True)
        return {
            pair: 0.5 if ahead is None or behind is None else (ahead + 1 - behind) / 2
            for pair, (ahead, behind) in zip(pairs, both, strict=True)
        }

    def _seen(self, digest: str) -> Exhibit:
        exhibit = self._court.cache.exhibit(digest)
        if exhibit is None:
            raise RewardError("The judge's cache no longer holds a picture that is to be compared; score it again.")
        return exhibit


def exhibits(images: ImagesLike, prompts: Sequence[str], edge: int) -> list[Exhibit]:
    """Pictures with their prompts as they are shown: PNG in RGB, no side longer than `edge`."""
    pictures = as_pictures(images)
    check_texts(prompts, len(pictures))
    return [Exhibit(prompt, _png(picture, edge)) for picture, prompt in zip(pictures, prompts, strict=True)]


def load_judge(  # noqa: PLR0913 - each is an option of the specification
    variant: str = "",
    *,
    model: str = "",
    url: str = OPENAI,
    key_env: str | None = None,
    criteria: str = CRITERIA,
    cache: str | Path | None = "default",
    concurrency: int = 8,
    repeats: int = 1,
    timeout: float = 60.0,
    tries: int = 5,
    backoff: float = 1.0,
    temperature: float | None = 0.0,
    seed: int = 0,
    structured: bool = True,
    edge: int = 1024,
) -> Judge | PairwiseJudge:
    """The judge at an endpoint.

    Args:
        variant: "" for a score of each picture, "pairwise" for comparisons.
        model: Its name there; it must take pictures.
        url: Base address; vLLM, llama.cpp and Ollama serve "http://localhost:PORT/v1".
        key_env: Environment variable with the key; None reads OPENAI_API_KEY for OpenAI and JUDGE_API_KEY elsewhere,
            so that no key goes to a stranger.
        criteria: What to judge by, in words.
        cache: Folder of verdicts (and of pictures that are compared); None keeps them in memory only.
        concurrency: Calls under way at once.
        repeats: How often each question is asked; the mean counts. Give a temperature above 0 with it.
        timeout: Seconds for each try.
        tries: Of one question.
        backoff: Seconds before the second try, doubled for each further one, less a seeded share of up to one half.
        temperature: Of the answers; None leaves it to the server, as some models demand.
        seed: Of the answers and the waits.
        structured: Whether the server enforces the JSON schema; False for servers that cannot.
        edge: Larger pictures are shrunk until their longer side has so many pixels.

    Raises:
        RewardError: Options that make no sense, or a key that is missing.
    """
    kinds: dict[str, type[Judge] | type[PairwiseJudge]] = {"": Judge, "pointwise": Judge, "pairwise": PairwiseJudge}
    check_variant("judge", variant, tuple(kinds))
    if not model or edge < 1:
        raise RewardError(
            f"Got model={model!r}, edge={edge}; expected the name of a model that takes pictures, for example "
            "judge(model=gpt-4o), and at least 1 pixel."
        )
    variable = key_env if key_env is not None else "OPENAI_API_KEY" if url == OPENAI else "JUDGE_API_KEY"
    endpoint = Endpoint(url, model, variable, timeout, tries, backoff, temperature, seed, structured)
    if (key_env or url == OPENAI) and not endpoint.has_key:
        raise RewardError(f"The environment variable {variable} is not set; put the key for {url} there.")
    folder = default_folder() if cache == "default" else None if cache is None else Path(cache)
    court = Court(endpoint, JudgeCache(folder), concurrency=concurrency, repeats=repeats)
    return kinds[variant](court, criteria=criteria, edge=edge)


def _png(picture: Image.Image, edge: int) -> bytes:
    shown = picture.convert("RGB")
    shown.thumbnail((edge, edge), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG")
    return buffer.getvalue()


def _digests(outputs: Tensor) -> list[str]:
    return ["".join(f"{int(word):0{_BITS // 4}x}" for word in row) for row in outputs.tolist()]
