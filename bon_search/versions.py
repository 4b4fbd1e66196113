"""Versions of what took part in a run."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

PACKAGES = ("bon-search", "torch", "diffusers", "transformers", "peft", "accelerate", "numpy", "pillow")


@cache
def versions() -> dict[str, str]:
    """Distribution name → version, for those that are installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
