"""What score-images can be asked for."""

from __future__ import annotations

from pathlib import Path

from bon_search.arguments import Parser, add_scoring, finite, positive, setting


def parser() -> Parser:
    """All options of score-images."""
    p = Parser(
        prog="score-images",
        description="Score, rank and filter pictures that exist with any reward, or with several side by side.",
        epilog='Example: score-images pictures --prompt "a red circle left of a blue square" --out scores.csv',
    )
    p.add_argument(
        "source",
        type=Path,
        nargs="?",
        metavar="FOLDER_OR_FILE",
        help="a folder of pictures, one picture, or a .csv or .jsonl list with image and prompt",
    )
    p.add_argument(
        "--reward",
        action="append",
        metavar="SPEC",
        help="a reward by name, or several combined (default: llava-reward); given again, each scores, the first ranks",
    )
    p.add_argument("--checkpoint", metavar="FOLDER", help="weights of the reward, for one that takes them")
    p.add_argument(
        "-o", dest="options", type=setting, action="append", default=[], metavar="NAME=VALUE",
        help="an option of the reward, for example base=FOLDER or num_crops=4",
    )  # fmt: skip
    add_scoring(p)
    p.add_argument(
        "--write-calibration",
        type=Path,
        metavar="FILE",
        help="write the deviations of each --reward within a prompt, beside those that the file has",
    )
    p.add_argument(
        "--inspect",
        metavar="CHECKPOINT",
        help="print what a checkpoint is (a folder, a hub id, or llava-reward:PERSPECTIVE); score nothing",
    )
    p.add_argument(
        "--prompt",
        metavar="TEXT",
        help="what every picture should show (default: of each picture, the .txt beside it or the prompt in the PNG)",
    )
    p.add_argument("--allow-empty", action="store_true", help="score pictures without a prompt against an empty one")
    p.add_argument(
        "--out", type=Path, metavar="FILE", help="write a .csv or .jsonl row by row; one that exists is gone on with"
    )
    p.add_argument("--list-rewards", action="store_true", help="print all rewards with their ranges, and stop")
    p.add_argument("--top", type=positive, metavar="K", help="print the table of the K best")
    p.add_argument("--min", type=finite, metavar="SCORE", dest="least", help="print the table from this score up")
    p.add_argument("--batch-size", type=positive, metavar="B", help="pictures in one call of the reward (default: 16)")
    p.add_argument("--device", default="auto", help="cuda, mps, cpu (default: the reward's own choice)")
    p.add_argument("--json", action="store_true", help="print the ranked table as JSON lines")
    return p
