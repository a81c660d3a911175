"""Scores of several models side by side: one table, as JSON, CSV, Markdown and LaTeX."""
