"""Text rendering: does the picture say what the prompt puts into quotation marks?

    score = 1 − Σ_k min(d_k, L_k) / Σ_k L_k

over the quoted texts t_k of the prompt: L_k is the length of t_k, and d_k the smallest Levenshtein distance between t_k
and any run of consecutive words that were read, from top to bottom and left to right; all in lower case and without
spaces. So 1 means that every text is there, letter by letter, and other writing in the picture costs nothing. Flow-GRPO
takes the first quoted text, compares it with all that was read at once and gives full marks where it is contained;
we differ so that "OPENN" is not "OPEN".

Range: 0 to 1. The reader is RapidOCR (PP-OCR models in ONNX, 32 MB, code and models Apache-2.0), whose package brings
its models: nothing is downloaded. Install it with `pip install "bon-search[ocr]"`.

References: Levenshtein, Soviet Physics Doklady 10 (1966); Liu et al., Flow-GRPO, arXiv:2505.05470.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from PIL import Image

from rewards.base import ImagesLike, Scores, check_scores
from rewards.errors import RewardError
from rewards.llava.pictures import as_pictures
from rewards.vision import check_texts

SIDE = 736
LONGEST = 4  # times as long as broad a picture may be; the reader would enlarge a longer one without end
_QUOTED = re.compile(r'"([^"]+)"|“([^”]+)”|„([^“”]+)[“”]|«([^»]+)»|‘(.+?)’(?!\w)|(?<!\w)\'(.+?)\'(?!\w)')


class OcrReward:
    """How exactly the quoted texts of the prompt stand in each picture, from 0 to 1.

    Lists of PIL images may be of any mixture of sizes and modes. A prompt without a quoted text is refused.

    Args:
        read: the words in an RGB picture, in reading order.
        revision: of what reads, for records and caches.
    """

    name = "ocr"
    absolute = True
    differentiable = False

    def __init__(self, read: Callable[[Image.Image], Sequence[str]], revision: str = "") -> None:
        self._read = read
        self.revision = revision

    def check_prompt(self, prompt: str) -> None:
        """Raise `RewardError` if the prompt quotes nothing."""
        quoted(prompt)

    def __call__(self, images: ImagesLike, prompts: Sequence[str]) -> Scores:
        """Scores of N pictures against their prompts, (N,) float32.

        Raises:
            RewardError: pictures that cannot be read, or a prompt that quotes nothing.
        """
        pictures = as_pictures(images)
        check_texts(prompts, len(pictures))
        wanted = [quoted(prompt) for prompt in prompts]
        scores = [
            rendering(texts, self._read(picture.convert("RGB")))
            for picture, texts in zip(pictures, wanted, strict=True)
        ]
        return check_scores(torch.tensor(scores), self.name, len(pictures))


def load_ocr(*, side: int = SIDE, threads: int = 0) -> OcrReward:
    """The reward with RapidOCR as reader, on the CPU.

    Args:
        side: pictures are enlarged until their shorter side has so many pixels before text is looked for; less is
            faster and misses small letters.
        threads: of the reader; 0 takes as many as torch does.

    Raises:
        RewardError: the reader is not installed, or an option that makes no sense.
    """
    if side < 32 or threads < 0:
        raise RewardError(
            f"Got side={side} and threads={threads}; expected a side of at least 32 and threads of at least 0."
        )
    if not (find_spec("rapidocr") and find_spec("onnxruntime")):
        raise RewardError("The reward 'ocr' reads with rapidocr, which is missing: pip install 'bon-search[ocr]'.")
    from rapidocr import RapidOCR

    engine = "EngineConfig.onnxruntime"
    reader: Callable[..., Any] = RapidOCR(
        params={
            "Global.log_level": "error",
            "Det.limit_side_len": side,
            f"{engine}.intra_op_num_threads": threads or torch.get_num_threads(),
            f"{engine}.inter_op_num_threads": 1,
        }
    )

    def read(picture: Image.Image) -> list[str]:
        lines = reader(np.asarray(_padded(picture))[..., ::-1]).txts or ()  # it takes blue first
        return [word for line in lines for word in line.split()]

    return OcrReward(read, f"rapidocr {version('rapidocr')}, side {side}")


def _padded(picture: Image.Image) -> Image.Image:
    """The picture with as much white below or beside it as brings its sides to `LONGEST` : 1."""
    least = -(-max(picture.size) // LONGEST)
    if min(picture.size) >= least:
        return picture
    padded = Image.new("RGB", (max(picture.width, least), max(picture.height, least)), "white")
    padded.paste(picture)
    return padded


def quoted(prompt: str) -> list[str]:
    """The texts in quotation marks, for example OPEN in: a sign that says "OPEN".

    Taken are straight, curly and angular double marks and single marks, of which apostrophes inside words are told.

    Raises:
        RewardError: there is none.
    """
    found = ["".join(groups) for groups in _QUOTED.findall(prompt)]
    texts = [text for text in found if letters(text)]
    if not texts:
        raise RewardError(
            f"The prompt {prompt!r} quotes no text, so 'ocr' does not know what to read; write for example: a sign "
            'that says "OPEN".'
        )
    return texts


def letters(text: str) -> str:
    """What is compared of a text: lower case, compatible forms of a character made one (NFKC), no white space."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def rendering(texts: Sequence[str], words: Sequence[str]) -> float:
    """How exactly `texts` stand among the `words` that were read, from 0 to 1; see the module."""
    read = [letters(word) for word in words]
    wanted = [letters(text) for text in texts]
    return 1 - sum(_nearest(text, read) for text in wanted) / sum(len(text) for text in wanted)


def _nearest(text: str, words: Sequence[str]) -> int:
    """Least distance of `text` from a run of words, at most its own length, which the empty run is away."""
    best = len(text)
    for start in range(len(words)):
        run = ""
        for word in words[start:]:
            run += word
            if len(run) - len(text) >= best:  # each letter too many costs at least 1
                break
            best = min(best, distance(text, run))
    return best


def distance(one: str, other: str) -> int:
    """Levenshtein's distance: the least number of letters to insert, delete or replace."""
    row = list(range(len(other) + 1))
    for number, letter in enumerate(one, 1):
        corner, row[0] = row[0], number
        for place, compared in enumerate(other, 1):
            corner, row[place] = row[place], min(row[place] + 1, row[place - 1] + 1, corner + (letter != compared))
    return row[-1]
