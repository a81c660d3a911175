"""Training: the objective, the optimizer step with cached gradients, the Trainer, and the run from start to end."""
