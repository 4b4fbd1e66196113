"""What previews foretell: a hierarchical normal model of a candidate's scores on its way, and of prompts.

A score r is taken on the scale w = −log(ceiling − r), on which saturating rewards are nearly normal too. On it the
scores of one candidate at L looks and at the end are a triangular sum of J = L + 1 independent parts: part j is what
look j adds to the forecast of the final score, so

    w_final = part_1 + … + part_J,    part_j ~ N(m_j, s_j²) within a prompt,

and a prompt is a draw of (m_1 … m_J) and of (log s_1 … log s_J) from two normal laws. Since a candidate ends early only
for what was seen of it, all that were looked at count for m_j and s_j, and nothing biases them.

>>> found = fit(previews)                     # of `calibrate.measure`, on your own model, reward and prompts
>>> found.save("forecast.json")
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bon_search.errors import SearchError

if TYPE_CHECKING:
    from torch import Tensor

    from bon_search.calibrate import Previews

FEWEST_PROMPTS = 8
SHRINKAGE = 0.2  # of the correlations between prompts, which few prompts do not show well
CEILINGS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 15.0, 40.0)  # deviations above the highest score


@dataclass(frozen=True, eq=False)
class Forecast:
    """The model for one pair of sampler and reward, at J − 1 looks and the end.

    Attributes:
        shares: (J − 1,) shares of the steps at which to look, ascending.
        look_cost: What a look at one candidate costs, in denoiser steps.
        ceiling: What no score reaches.
        margin: Least distance from the ceiling that a score is taken to have.
        deviation: Mean standard deviation of the final scores within a prompt; the unit of prices.
        price: What one denoiser step must be expected to add to the best score, in deviations.
        mix: (J, J) lower triangular: the parts of scores on the scale w.
        means: (J,) of the prompts' m.
        mean_covariance: (J, J) of the prompts' m.
        log_scales: (J,) mean of the prompts' log s.
        log_scale_covariance: (J, J) of the prompts' log s.
    """

    shares: tuple[float, ...]
    look_cost: float
    ceiling: float
    margin: float
    deviation: float
    price: float
    mix: Tensor
    means: Tensor
    mean_covariance: Tensor
    log_scales: Tensor
    log_scale_covariance: Tensor

    def scale(self, scores: Tensor) -> Tensor:
        """Scores of any shape as w."""
        return -(self.ceiling - scores.double()).clamp(min=self.margin).log()

    def parts(self, scores: Tensor) -> Tensor:
        """(…, j) scores at the first j looks, or at all and the end → the (…, j) parts that they make known."""
        count = scores.shape[-1]
        return self.scale(scores) @ self.mix[:count, :count].T

    def places(self, steps: int) -> tuple[int, ...]:
        """The J steps of the looks and the end, of K = `steps`.

        Raises:
            SearchError: Two of them fall on one step.
        """
        places = (*(round(share * steps) for share in self.shares), steps)
        if list(places) != sorted(set(places)) or places[0] < 1:
            raise SearchError(
                f"Of {steps} steps, the looks of this forecast fall on {list(places[:-1])}, which are not distinct "
                "steps on the way; fit a forecast to previews of this many steps."
            )
        return places

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        plain = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
        Path(path).write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Forecast:
        """Read what `save` wrote.

        Args:
            path: A file, or the name of a forecast that comes with the package (`published`).

        Raises:
            SearchError: It cannot be read, or is no forecast.
        """
        try:
            file = PUBLISHED / f"{path}.json" if path in published() else Path(path)
            found = json.loads(file.read_text(encoding="utf-8"))
            values = {field.name: found[field.name] for field in fields(cls)}
            tensors = {name: torch.tensor(values[name], dtype=torch.float64) for name in TENSORS}
            return cls(**{**values, **tensors, "shares": tuple(values["shares"])})
        except OSError as error:
            raise SearchError(
                f"{path} cannot be read ({error.strerror}); give the file of a forecast, or one of {published()}."
            ) from error
        except (KeyError, TypeError, ValueError) as error:
            raise SearchError(
                f"{path} is not a forecast ({error!r}); give a file that `Forecast.save` wrote."
            ) from error


PUBLISHED = Path(__file__).parent / "forecasts"
TENSORS = ("mix", "means", "mean_covariance", "log_scales", "log_scale_covariance")
PRICE = 0.0015  # near what the 16th candidate adds for each of its steps, of a normal reward


def fit(previews: Previews, *, price: float = PRICE) -> Forecast:
    """The forecast that suits what was measured.

    Args:
        previews: Of at least 8 prompts, better 50 or more, and at least 8 candidates for each.
        price: As in `Forecast`.

    Raises:
        SearchError: Too few of either.
    """
    prompts, m, count = previews.scores.shape
    if prompts < FEWEST_PROMPTS or m < FEWEST_PROMPTS:
        raise SearchError(
            f"A forecast needs at least {FEWEST_PROMPTS} prompts with as many candidates, but got {prompts} prompts "
            f"with {m}; measure more, better 50 prompts."
        )
    final = previews.scores[..., -1].double()
    deviation = float(final.std(dim=1).mean())
    ceiling = _ceiling(final, deviation)
    blank = torch.zeros(0, dtype=torch.float64)
    found = Forecast(
        shares=previews.shares,
        look_cost=previews.look_cost,
        ceiling=ceiling,
        margin=float(ceiling - final.max()) / 2,
        deviation=deviation,
        price=price,
        mix=torch.eye(count, dtype=torch.float64),
        means=blank,
        mean_covariance=blank,
        log_scales=blank,
        log_scale_covariance=blank,
    )
    found = replace(found, mix=_mix(found.scale(previews.scores)))
    parts = found.parts(previews.scores)  # (P, M, J)
    scales = parts.std(dim=1)  # (P, J)
    bias, noise = log_scale_error(torch.tensor([float(m)], dtype=torch.float64))
    logs = scales.log() - bias
    return replace(
        found,
        means=parts.mean(dim=(0, 1)),
        mean_covariance=_covariance(parts.mean(dim=1), scales.square().mean(dim=0) / m),
        log_scales=logs.mean(dim=0),
        log_scale_covariance=_covariance(logs, noise.expand(count)),
    )


def published() -> list[str]:
    """The forecasts that come with the package, `<model>_<reward>`.

    Those of FLUX.1-dev and SDXL were fitted to TTSnap's release (arXiv 2511.22242): 20 steps of the usual ODE solvers,
    rewards in the units of `rewards`; `benchmarks/previews.py --save` makes them. That of the embedded model and reward
    is what `calibrate-search` writes.
    """
    return sorted(file.stem for file in PUBLISHED.glob("*.json"))


def log_scale_error(count: Tensor) -> tuple[Tensor, Tensor]:
    """Bias and variance of the log of the standard deviation of `count` ≥ 2 normal numbers; two of count's shape."""
    half = (count - 1) / 2
    return (torch.special.digamma(half) - half.log()) / 2, torch.special.polygamma(1, half) / 4


def _ceiling(final: Tensor, deviation: float) -> float:
    """The ceiling under which the final scores (P, M) are likeliest normal within a prompt, of those tried."""
    highest = float(final.max())

    def likelihood(ceiling: float) -> float:
        w = -(ceiling - final).log()  # whose derivative is exp(w)
        return float((w.mean(dim=1) - w.std(dim=1).log()).mean())

    return max((highest + share * deviation for share in CEILINGS), key=likelihood)


def _mix(w: Tensor) -> Tensor:
    """Of scores (P, M, J) on the scale w: D·C⁻¹, C the Cholesky factor within a prompt and D its last row."""
    centred = w - w.mean(dim=1, keepdim=True)
    spread = centred[..., -1].std(dim=1)
    weighed = centred / spread.clamp(min=0.3 * float(spread.median()))[:, None, None]
    rows = weighed.flatten(0, 1)  # (P·M, J)
    covariance = rows.T @ rows / len(rows)
    floor = 1e-9 * covariance.diagonal().mean() * torch.eye(len(covariance), dtype=torch.float64)
    factor = torch.linalg.cholesky(covariance + floor)
    mix: Tensor = factor[-1, :, None] * torch.linalg.inv(factor)
    return mix


def _covariance(rows: Tensor, noise: Tensor) -> Tensor:
    """(J, J) of the prompts behind the (P, J) rows, each measured with the variance `noise` (J,)."""
    correlations = torch.corrcoef(rows.T)
    shrunk = (1 - SHRINKAGE) * correlations + SHRINKAGE * torch.eye(len(correlations), dtype=torch.float64)
    found = rows.var(dim=0)
    deviation = (found - noise).clamp(min=1e-2 * found).sqrt()
    return deviation[:, None] * shrunk * deviation
