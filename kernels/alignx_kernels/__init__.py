"""Losses of multilingual representation alignment: span pooling, InfoNCE and language matching."""

from .common.dispatch import choose_implementation
from .info_nce import info_nce_loss
from .language_matching import language_matching_loss
from .pooled_info_nce import pooled_info_nce_loss
from .span_mean import span_mean

__all__ = ["choose_implementation", "info_nce_loss", "language_matching_loss", "pooled_info_nce_loss", "span_mean"]
