"""LLaVA-Reward: a multimodal language model whose last token, after one look back at the picture, becomes a score.

Reference: "Multimodal LLMs as Customized Reward Models for Text-to-Image Generation", ICCV 2025, arXiv:2507.21391.
"""
