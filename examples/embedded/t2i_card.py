"""Writes the tables of `figures.json` into the model card of the embedded text-to-image model.

python t2i_card.py            # after t2i_evaluate.py --json ../../pipelines/embedded/figures.json
"""

import json
from pathlib import Path

MODEL = Path(__file__).parents[2] / "pipelines" / "embedded"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"


def tables(figures: dict[str, dict[str, dict[str, float]]]) -> str:
    """Pass rates by skill, and previews against final verdicts, as Markdown."""
    lines = ["| skill | prompts | one candidate | strict | best of 4 | best of 16 |", "|---|---|---|---|---|---|"]
    for skill, row in figures["skills"].items():
        rates = " | ".join(f"{100 * row[key]:.1f} %" for key in ("single", "strict", "best_of_4", "best_of_16"))
        lines.append(f"| {skill} | {row['prompts']} | {rates} |")
    steps = figures["settings"]["steps"]
    lines += [
        "",
        "| preview after | same verdict as the end | correlation of scores within a prompt |",
        "|---|---|---|",
    ]
    for step, row in figures["previews"].items():
        share = f"{step} of {steps} steps"
        lines.append(f"| {share} | {100 * row['agreement']:.1f} % | {row['correlation_within_prompt']:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Replace what stands between the two marks."""
    card = MODEL / "README.md"
    before, rest = card.read_text().split(BEGIN)
    after = rest.split(END)[1]
    figures = json.loads((MODEL / "figures.json").read_text())
    card.write_text(f"{before}{BEGIN}\n{tables(figures)}\n{END}{after}")


if __name__ == "__main__":
    main()
