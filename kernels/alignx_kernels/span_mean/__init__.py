"""Mean of hidden states over spans of packed tokens."""

from .api import span_mean

__all__ = ["span_mean"]
