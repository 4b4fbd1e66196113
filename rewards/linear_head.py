"""Five linear layers in a row without activations: the head of the LAION aesthetic predictor and of ImageReward.

Reference: github.com/christophschuhmann/improved-aesthetic-predictor.
"""

from collections import OrderedDict

from torch import Tensor, nn

WIDTHS = (1024, 128, 64, 16, 1)
_NUMBERS = ("0", "2", "4", "6", "7")  # dropout stood between


class LinearHead(nn.Module):
    """Scores (B,) of features (B, width).

    Args:
        width: of the features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        steps = zip(_NUMBERS, (width, *WIDTHS), WIDTHS, strict=False)
        self.layers = nn.Sequential(OrderedDict((number, nn.Linear(near, far)) for number, near, far in steps))

    def forward(self, features: Tensor) -> Tensor:
        """Scores (B,)."""
        scores: Tensor = self.layers(features)
        return scores[:, 0]
