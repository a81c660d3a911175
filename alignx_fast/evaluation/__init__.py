"""Scores of a model: retrieval, layer similarity, translation and perplexity on held-out sentences; understanding tasks."""

from .evaluate import evaluate
from .understanding import run_understanding

__all__ = ["evaluate", "run_understanding"]
