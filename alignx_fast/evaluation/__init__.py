"""Scores of a model: retrieval, layer similarity, translation and perplexity on held-out sentences; understanding tasks."""

from .evaluate import evaluate

__all__ = ["evaluate"]
