"""Cosine InfoNCE over many negatives, without the N x M similarities."""

from .api import info_nce_loss

__all__ = ["info_nce_loss"]
