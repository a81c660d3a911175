"""Training: the optimizer step with cached gradients, the Trainer, the stages, and the run from start to end."""

import alignx_fast.models.adapters  # noqa: F401  (before transformers' Trainer, which imports peft unguarded)
