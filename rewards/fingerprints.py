"""Short hashes of files, by which records tell one state of them from another."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

_SAMPLES, _SAMPLE = 256, 1 << 16  # of a file larger than 16 MiB only so many pieces of so many bytes are read


def fingerprint(files: Sequence[Path], settings: str) -> str:
    """Hash of settings and files, 12 hexadecimal digits; of a large file, of its size and pieces all through it."""
    digest = hashlib.sha256(settings.encode())
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            for number in range(_SAMPLES):
                file.seek(number * max(_SAMPLE, size // _SAMPLES))
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:12]
