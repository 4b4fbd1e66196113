"""Read pictures that came from anywhere: any mode and depth becomes 8-bit RGB, any broken file one sentence.

Animated: the first frame. 16 bits: scaled to 8; floating point: [0, 1] scaled to 8 bits. Palette: looked up.
Transparent: laid on white. Greyscale: the same in all three channels. EXIF rotation: applied, as viewers do.
"""

from __future__ import annotations

import io
import json
import re
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bon_search.errors import SearchError
from bon_search.files import reason

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image

SUFFIXES = frozenset(
    [
        ".png",
        ".apng",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".webp",
        ".avif",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
    ]  # what a folder is searched for
)


def content_of(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        SearchError: It is not there, cannot be read, or is empty.
    """
    try:
        if path.exists() and not path.is_file():  # reading a named pipe would wait for ever
            raise SearchError("is no file; give the path of a picture.")
        content = path.read_bytes()
    except SearchError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        why = reason(error) if isinstance(error, OSError) else error
        raise SearchError(f"cannot be read ({why}); check the path and its permissions.") from error
    if not content:
        raise SearchError("is empty (0 bytes); make or copy it again.")
    return content


def rgb(content: bytes) -> Image.Image:
    """The picture in a file's bytes as 8-bit RGB.

    Raises:
        SearchError: It is no picture, damaged, or so large that it may be a decompression bomb.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large, but still below the limit
            return _converted(Image.open(io.BytesIO(content)))
    except SearchError:
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise SearchError(f"has more than {limit} pixels, a decompression bomb; make it smaller.") from error
    except Exception as error:  # a damaged file makes its decoder raise anything from KeyError to struct.error
        raise SearchError(f"is not a picture, or damaged ({_first_line(error)}); make or copy it again.") from error


def prompt_of(path: Path, content: bytes, *, allow_empty: bool = False) -> str:
    """The prompt that belongs to a picture: of the text file beside it, else of the PNG's own text chunks.

    Raises:
        SearchError: There is none, unless it may be empty, or the text file cannot be used.
    """
    sidecar = path.with_suffix(".txt")
    if sidecar.is_file():
        try:
            prompt = sidecar.read_text(encoding="utf-8-sig").strip()
        except (OSError, UnicodeError) as error:
            raise SearchError(f"has a prompt that cannot be read: {sidecar} is not a UTF-8 text file.") from error
        if not prompt and not allow_empty:
            raise SearchError(f"has an empty prompt; write one into {sidecar}, give --prompt, or add --allow-empty.")
        return prompt
    prompt = prompt_inside(content)
    if not prompt and not allow_empty:
        raise SearchError(
            f"has no prompt; give --prompt, write one into {sidecar.name} beside it, or add --allow-empty."
        )
    return prompt


def prompt_inside(content: bytes) -> str:
    """The prompt in a PNG's text chunks, `bon_search` or `parameters` (A1111's form); empty if there is none."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(io.BytesIO(content))
            chunks: dict[Any, Any] = image.info
            if not {"bon_search", "parameters"} & chunks.keys():
                chunks = getattr(image, "text", {})  # decodes all pixels to reach chunks behind them
    except Exception:  # whatever is wrong with it, `rgb` says so
        rgb(content)
        return ""
    with suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):  # a chunk of somebody else's
        prompt: str = json.loads(chunks["bon_search"])["recipe"]["prompt"].strip()
        return prompt
    return _positive_prompt(str(chunks.get("parameters", "")))


def _positive_prompt(parameters: str) -> str:
    """What stands before the negative prompt and the settings."""
    return re.split(r"^(?:Negative prompt:|Steps: \d)", parameters, maxsplit=1, flags=re.MULTILINE)[0].strip()


def _converted(image: Image.Image) -> Image.Image:
    from PIL import Image, ImageOps

    image.load()
    if image.mode in ("F", "I") or image.mode.startswith("I;"):
        image = _eight_bits(image)
    with suppress(Exception):  # a broken EXIF block is no reason to refuse the pixels
        image = ImageOps.exif_transpose(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Greyscale of more than 8 bits, scaled to 8; converted by Pillow itself it would be clipped to white."""
    import numpy as np
    from PIL import Image

    values = np.asarray(image).astype(np.float64)
    top = 1 if image.mode == "F" else 65535
    if not (values.min() >= 0 and values.max() <= top):  # written so that NaN is refused too
        raise SearchError(
            f"holds values from {values.min():.4g} to {values.max():.4g}; expected 0 to {top}: save it with 8 or 16 "
            "bits a channel."
        )
    return Image.fromarray((values * (255 / top)).round().astype(np.uint8))


def _first_line(error: Exception) -> str:
    lines = str(error).replace("<_io.BytesIO object at", "<").splitlines()
    return re.sub(r"\s*<[^>]*>", "", lines[0]) if lines else type(error).__name__
