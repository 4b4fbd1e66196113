"""A judge on this machine, for tests: it looks at the pictures, and misbehaves as told."""

import base64
import io
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from PIL import Image

Handler = BaseHTTPRequestHandler
Trick = Callable[["Handler", dict[str, Any]], bool]  # True if it has answered, or cut the line, itself


@dataclass
class FakeJudge:
    """What the server was asked, and how it answers.

    Attributes:
        url: Base address.
        requests: Bodies, in the order of their coming.
        headers: Of the requests.
        tricks: What to do to the next requests instead of answering, one each.
        always: What to do to every request for which it returns True.
        under_way: How many requests were in work at once, at most.
    """

    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    tricks: list[Trick] = field(default_factory=list)
    always: Trick = lambda handler, body: False
    under_way: int = 0
    delay: float = 0.0


def pictures(body: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """The pictures in a request, (H, W, 3)."""
    parts = [part for part in body["messages"][1]["content"] if part["type"] == "image_url"]
    data = [base64.b64decode(part["image_url"]["url"].partition("base64,")[2]) for part in parts]
    return [np.asarray(Image.open(io.BytesIO(png))) for png in data]


def brightness(body: dict[str, Any]) -> list[float]:
    return [float(picture.mean()) / 25.5 for picture in pictures(body)]  # 0 to 10


def opinion(body: dict[str, Any]) -> str:
    """Brighter is better; of two pictures within 0.1, the first: it has a liking for the first place."""
    light = brightness(body)
    if len(light) == 1:
        return json.dumps({"explanation": "so bright", "score": light[0]})
    return json.dumps({"explanation": "brighter", "preferred": "first" if light[0] > light[1] - 0.1 else "second"})


def completion(content: object, **more: object) -> bytes:
    message = {"role": "assistant", "content": content, **more}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


def send(handler: Handler, body: bytes, status: int = 200, **headers: str) -> bool:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)
    return True


def status(code: int, message: str = "no", **headers: str) -> Trick:
    body = json.dumps({"error": {"message": message}}).encode()
    return lambda handler, _: send(handler, body, code, **headers)


def says(content: object, **more: object) -> Trick:
    return lambda handler, _: send(handler, completion(content, **more))


def raw(body: bytes) -> Trick:
    return lambda handler, _: send(handler, body)


def slow(seconds: float) -> Trick:
    def trick(handler: Handler, body: dict[str, Any]) -> bool:
        time.sleep(seconds)
        return send(handler, completion(opinion(body)))

    return trick


def drips(seconds: float, count: int) -> Trick:
    """An answer that comes byte by byte, each in time."""

    def trick(handler: Handler, _: dict[str, Any]) -> bool:
        handler.send_response(200)
        handler.end_headers()
        for _byte in range(count):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(seconds)
        handler.close_connection = True
        return True

    return trick


def cut(handler: Handler, _: dict[str, Any]) -> bool:
    """The connection ends without a word."""
    handler.close_connection = True
    return True


def cut_inside(handler: Handler, body: dict[str, Any]) -> bool:
    """The connection ends in the middle of a whole answer."""
    answer = completion(opinion(body))
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(answer)))
    handler.end_headers()
    handler.wfile.write(answer[: len(answer) // 2])
    handler.close_connection = True
    return True


@contextmanager
def fake_judge() -> Iterator[FakeJudge]:
    """A server on a free port, in threads of its own."""
    judge = FakeJudge()
    lock = threading.Lock()
    busy = 0

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            nonlocal busy
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                judge.requests.append(body)
                judge.headers.append(dict(self.headers))
                trick = judge.tricks.pop(0) if judge.tricks else None
                busy += 1
                judge.under_way = max(judge.under_way, busy)
            time.sleep(judge.delay)
            with lock:  # before the answer, on which the next request may follow at once
                busy -= 1
            try:
                if not (trick or judge.always)(self, body):
                    send(self, completion(opinion(body)))
            except OSError:  # the other side has gone, as it may
                pass

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    judge.url = f"http://127.0.0.1:{server.server_port}/v1"
    try:
        yield judge
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
