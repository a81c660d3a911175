"""One real optimizer step on real model shapes with random weights: ours, and what people use otherwise, on the same rows."""
