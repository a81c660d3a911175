"""Corpora: from published data sets and files of one's own to a folder of clean pairs, out of core."""
