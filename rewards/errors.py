"""Errors that a user of the rewards can cause and cure.

RewardError
├── SpecError               a specification that cannot be read
├── UnknownRewardError      a reward's name, variant or option that does not exist
├── ImageError              pictures of the wrong type, shape or range
├── CheckpointError         a folder that holds no LLaVA-Reward
└── ScoreError              a reward that returned what no ranking can use
"""


class RewardError(ValueError):
    """Something about images, prompts or a reward's name that the user can put right."""


class SpecError(RewardError):
    """A specification that does not follow the grammar."""


class UnknownRewardError(RewardError):
    """A reward's name, variant or option that does not exist."""


class ImageError(RewardError):
    """Pictures of the wrong type, shape or range."""


class CheckpointError(RewardError):
    """A folder that does not hold a LLaVA-Reward."""


class ScoreError(RewardError):
    """Scores of the wrong number, or not finite."""
