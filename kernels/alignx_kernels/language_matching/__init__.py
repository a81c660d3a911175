"""Pairwise language-matching loss without the pairs."""

from .api import language_matching_loss

__all__ = ["language_matching_loss"]
