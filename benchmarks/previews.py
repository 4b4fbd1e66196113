"""What a pruning or stopping policy costs for the quality of best-of-16, replayed on scores of real trajectories.

    python benchmarks/previews.py --fit FILE.npz --test FILE.npz --json OUT

A file holds arrays (prompts, images, steps) of rewards of previews, the last column that of the finished image. The
policy is fitted on the prompts of `--fit` and replayed on those of `--test`; if both name one file, each half of its
prompts is tested with the policy of the other half, and the two results are averaged. The unit of cost is a denoiser
step of one image; each score of a preview or of a finished image costs `--look-cost` of it. Best-of-16, its exact mean
over all choices of 16 images, costs 16 · (steps + look cost). A policy has one budget knob for all prompts (the price
of a step for `pandora`, the number of starts for a schedule); the ratio is that at the least budget with which the mean
score over the test prompts is at least that of best-of-16.

Images that occur twice in an array (144 of 200 in the SDXL arrays of TTSnap's release repeat the other 56) count once,
for the policy as for best-of-16: no search starts one seed twice. `--repeats` leaves them in.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from measure import table, where

from bon_search.calibrate import Previews, Replays, best_of_n_score, calibrate
from bon_search.forecast import fit
from bon_search.pruning import DEFAULT, Schedule
from bon_search.replay import calibrate_forecast, reach

TARGET = 16
LOOKS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.75)
SCHEDULED = (0.15, 0.25, 0.35, 0.45, 0.6, 0.75)

Policy = Callable[[torch.Tensor, torch.Tensor, argparse.Namespace], tuple[float, float]]
"""(scores to fit, scores to test, options) → cost relative to best-of-16, and the mean score reached."""


def at_looks(scores: torch.Tensor, shares: tuple[float, ...], look_cost: float) -> Previews:
    """The columns (P, M, K) → (P, M, L + 1) at some shares of the steps, and the last."""
    steps = scores.shape[2]
    places = [round(share * steps) for share in shares]
    columns = [place - 1 for place in [*places, steps]]
    return Previews(scores[..., columns], tuple(place / steps for place in places), steps, look_cost)


def pandora(seen: torch.Tensor, unseen: torch.Tensor, options: argparse.Namespace) -> tuple[float, float]:
    """Reservation values under the forecast of the prompts seen."""
    forecast = fit(at_looks(seen, LOOKS, options.look_cost))
    previews = at_looks(unseen, LOOKS, options.look_cost)
    wanted = best_of_n_score(unseen[..., -1], TARGET)
    _, found = reach(
        forecast,
        previews,
        wanted,
        n=options.n,
        batch_size=options.batch_size,
        draws=options.draws,
        seed=options.seed,
    )
    return float(found.cost.mean()) / whole(unseen, options), float(found.score.mean())


def halving(seen: torch.Tensor, unseen: torch.Tensor, options: argparse.Namespace) -> tuple[float, float]:
    """The default schedule; nothing is fitted."""
    return scheduled(DEFAULT, unseen, options)


def calibrated(seen: torch.Tensor, unseen: torch.Tensor, options: argparse.Namespace) -> tuple[float, float]:
    """The schedule that `calibrate` chooses on the prompts seen."""
    found = calibrate(at_looks(seen, SCHEDULED, options.look_cost), target=min(TARGET, seen.shape[1] // 4))
    return scheduled(found.schedule, unseen, options)


def scheduled(schedule: Schedule, unseen: torch.Tensor, options: argparse.Namespace) -> tuple[float, float]:
    """A schedule at the number of starts, interpolated, that reaches best-of-16."""
    replays = Replays(at_looks(unseen, SCHEDULED, options.look_cost), options.seed)
    ratio, _ = replays.ratio(schedule, TARGET)
    return ratio, best_of_n_score(unseen[..., -1], TARGET)


POLICIES: dict[str, Policy] = {"pandora": pandora, "halving": halving, "calibrated": calibrated}


def whole(scores: torch.Tensor, options: argparse.Namespace) -> float:
    """The cost of best-of-16."""
    return TARGET * (scores.shape[2] + float(options.look_cost))


def halves(prompts: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two random halves of the prompts."""
    order = torch.randperm(prompts, generator=torch.Generator().manual_seed(seed))
    return order[: prompts // 2], order[prompts // 2 :]


def distinct(scores: torch.Tensor) -> torch.Tensor:
    """(P, M, K) without the images whose scores repeat those of an earlier one at all prompts and steps."""
    rows = scores.transpose(0, 1).flatten(1).numpy()
    return scores[:, np.sort(np.unique(rows, axis=0, return_index=True)[1])]


def trials(name: str, options: argparse.Namespace) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pairs of scores: to fit and to test."""
    seen, unseen = (torch.from_numpy(np.load(path)[name]) for path in (options.fit, options.test))
    if not options.repeats:
        seen, unseen = distinct(seen), distinct(unseen)
    if options.fit.resolve() != options.test.resolve():
        yield seen, unseen
        return
    first, second = halves(len(seen), options.seed)
    yield seen[first], seen[second]
    yield seen[second], seen[first]


def measure(name: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """Cost ratio, quality and target of one array, means over its trials."""
    rows = []
    for seen, unseen in trials(name, options):
        ratio, quality = POLICIES[options.policy](seen, unseen, options)
        rows.append((ratio, quality, best_of_n_score(unseen[..., -1], TARGET)))
    ratio, quality, target = np.mean(rows, axis=0).tolist()
    return ratio, quality, target


def save(name: str, options: argparse.Namespace) -> None:
    """Write the forecast of all prompts to fit, priced for best-of-16."""
    scores = distinct(torch.from_numpy(np.load(options.fit)[name]))
    previews = at_looks(scores, LOOKS, options.look_cost)
    most = {"n": options.n, "batch_size": options.batch_size, "draws": options.draws, "seed": options.seed}
    forecast, ratio = calibrate_forecast(previews, target=TARGET, **most)
    forecast.save(options.save / f"{name}.json")
    print(f"{name}: price {forecast.price:.2g}, cost ratio {ratio:.3f}")


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fit", type=Path, required=True, help="arrays whose prompts the policy is fitted on")
    parser.add_argument("--test", type=Path, help="arrays whose prompts it is tested on (those of --fit, in halves)")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument(
        "--save", type=Path, help="a folder for forecasts of all prompts to fit; nothing is tested then"
    )
    parser.add_argument("--policy", choices=POLICIES, default="pandora")
    parser.add_argument("--look-cost", type=float, default=0.12, help="of one score, in denoiser steps (%(default)s)")
    parser.add_argument("--n", type=int, default=64, help="the most candidates pandora starts (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=1, help="candidates pandora moves at once (%(default)s)")
    parser.add_argument("--draws", type=int, default=32, help="orders of each prompt's images (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of orders and halves (%(default)s)")
    parser.add_argument("--repeats", action="store_true", help="keep images that repeat others")
    found = parser.parse_args()
    found.test = found.test or found.fit
    return found


def main() -> None:
    """Print the table, write the result."""
    chosen = options()
    torch.set_num_threads(1)
    names = sorted(set(np.load(chosen.fit).files) & set(np.load(chosen.test).files))
    if chosen.save:
        for name in names:
            save(name, chosen)
        return
    found = {name: measure(name, chosen) for name in names}
    ratios = {name: ratio for name, (ratio, _, _) in found.items()}
    result = {
        "mean_cost_ratio": float(np.mean(list(ratios.values()))),
        "cost_ratio": ratios,
        "quality": {name: quality for name, (_, quality, _) in found.items()},
        "target": {name: target for name, (_, _, target) in found.items()},
        "policy": chosen.policy,
        "tested_on": "swapped halves" if chosen.fit.resolve() == chosen.test.resolve() else "other prompts",
    }
    rows = [
        (name, f"{ratio:.3f}", f"{quality:.4f}", f"{target:.4f}") for name, (ratio, quality, target) in found.items()
    ]
    print(table(("array", "cost ratio", "score", f"best-of-{TARGET}"), rows))
    print(f"mean cost ratio {result['mean_cost_ratio']:.3f} ({chosen.policy}, tested on {result['tested_on']})")
    print(where(torch.get_num_threads()))
    if chosen.json:
        chosen.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
