"""The memory plan: what training holds on the GPU, computed from the model's configuration alone, before any weight is read."""
