"""A run folder as one page that can be read offline."""
