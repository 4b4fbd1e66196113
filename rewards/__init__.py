"""Rewards: images and prompts become numbers."""
