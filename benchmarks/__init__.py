"""Benchmarks: one registry of problems and implementations; every speed stands beside its error, its memory and its floor."""
