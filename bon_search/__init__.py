"""Inference-time scaling for diffusion and flow models: spend a budget of candidates, let a reward choose.

>>> from bon_search import BestOfNPipeline
>>> pipe = BestOfNPipeline.from_pretrained("embedded", reward="llava-reward")
>>> out = pipe("a red circle left of a blue square", n=16, seed=0)
>>> out.best.image
"""

from bon_search.critic import Look
from bon_search.errors import BudgetExceeded, SearchError
from bon_search.ledger import Cost
from bon_search.pipeline import BestOfNPipeline, generate_best
from bon_search.result import Candidate, Recipe, SearchResult
from bon_search.run import Run
from bon_search.search import Scored

__all__ = [
    "BestOfNPipeline",
    "BudgetExceeded",
    "Candidate",
    "Cost",
    "Look",
    "Recipe",
    "Run",
    "Scored",
    "SearchError",
    "SearchResult",
    "generate_best",
]
