"""Span pooling and InfoNCE as one operator."""

from .api import pooled_info_nce_loss

__all__ = ["pooled_info_nce_loss"]
