"""Preparing corpora: synthetic pairs with planted faults, engines side by side, and the whole of `prepare`."""
