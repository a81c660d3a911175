"""Studies: variants of a run times seeds, trained and scored alike, and compared on one page."""
