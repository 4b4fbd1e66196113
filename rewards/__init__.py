"""Rewards: images and prompts become numbers, higher is better.

`load_reward(name)` is the door; `Reward` is the interface that all of them share.
"""

from rewards.base import Images, ImagesLike, Reward, Scores, as_images
from rewards.errors import RewardError
from rewards.registry import load_reward, reward_names

__all__ = ["Images", "ImagesLike", "Reward", "RewardError", "Scores", "as_images", "load_reward", "reward_names"]
