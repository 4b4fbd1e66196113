"""What judges have said, kept by the content of the question: the same picture is never paid for twice.

One file for each verdict, and for pictures that are compared one for each picture, all named by hashes. A file is
written beside its place and moved there in one step, so that any number of processes may share a folder; one that is
damaged counts as missing. Keys of services never come here.
"""

import json
import os
import tempfile
import warnings
from pathlib import Path

from rewards.errors import RewardError
from rewards.judge_questions import Exhibit, Verdict


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/bon-search/judge`, or the same in `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bon-search" / "judge"


class JudgeCache:
    """Verdicts and exhibits in a folder, or in memory.

    Args:
        folder: Where; None keeps everything in memory only.

    Raises:
        RewardError: The folder cannot be made.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._memory: dict[str, bytes] = {}  # file name → content, of what is on no disk
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise RewardError(
                    f"The judge's cache {folder} cannot be made ({error}); give another folder."
                ) from error

    def verdict(self, key: str) -> Verdict | None:
        """What was said to this question, or None."""
        try:
            found = json.loads(self._read(f"{key}.json") or b"null")
            return Verdict(float(found["value"]), str(found["explanation"]))
        except (ValueError, KeyError, TypeError):  # missing, or not whole
            return None

    def keep_verdict(self, key: str, verdict: Verdict) -> None:
        """Keep what was said."""
        content = {"explanation": verdict.explanation, "value": verdict.value}
        self._write(f"{key}.json", json.dumps(content).encode())

    def exhibit(self, digest: str) -> Exhibit | None:
        """The exhibit whose digest begins like this, or None."""
        content = self._read(f"{digest}.exhibit")
        if content is None:
            return None
        prompt, _, png = content.partition(b"\0")
        try:
            exhibit = Exhibit(json.loads(prompt), png)
        except ValueError:
            return None
        return exhibit if exhibit.digest.startswith(digest) else None

    def keep_exhibit(self, digest: str, exhibit: Exhibit) -> None:
        """Keep a picture that will be compared, under the beginning of its digest."""
        if self.exhibit(digest) is None:
            self._write(f"{digest}.exhibit", json.dumps(exhibit.prompt).encode() + b"\0" + exhibit.png)

    def _read(self, name: str) -> bytes | None:
        if name in self._memory or self._folder is None:
            return self._memory.get(name)
        try:
            return (self._folder / name[:2] / name).read_bytes()
        except OSError:
            return None

    def _write(self, name: str, content: bytes) -> None:
        """Into the folder; into memory where there is none, or it takes no more, which must not end a run."""
        try:
            if self._folder is not None:
                _replace(self._folder / name[:2] / name, content)
                return
        except OSError as error:
            warnings.warn(f"The judge's cache in {self._folder} takes no file ({error}).", stacklevel=2)
        self._memory[name] = content


def _replace(path: Path, content: bytes) -> None:
    """Write a file in one step: all of it or nothing."""
    path.parent.mkdir(exist_ok=True)
    descriptor, beside = tempfile.mkstemp(dir=path.parent, prefix=".")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise
