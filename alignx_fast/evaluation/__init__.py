"""Scores of a model: retrieval, layer similarity, translation and perplexity on held-out sentences; understanding tasks."""
