"""Training of LLaVA-Reward: from records of preference on disk to a checkpoint in the published layout."""
