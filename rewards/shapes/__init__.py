"""The embedded model's world: sentences about coloured shapes, a renderer, and the exact verifier as a reward."""

from rewards.shapes.captions import ALL_SKILLS, HARD_SKILLS, SKILLS, VOCABULARY, Spec, parse, try_parse, unknown_words

__all__ = ["ALL_SKILLS", "HARD_SKILLS", "SKILLS", "VOCABULARY", "Spec", "parse", "try_parse", "unknown_words"]
