"""What several test folders share; imported as `support.…` (pytest's pythonpath is `tests`)."""
