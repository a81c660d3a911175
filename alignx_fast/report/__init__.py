"""A run folder as one page that can be read offline."""

from .write import write_report

__all__ = ["write_report"]
