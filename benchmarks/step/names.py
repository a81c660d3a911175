"""Who takes part in a training step; apart from the cases, so that reading results needs no training library."""

CACHED, MICRO, NTP = "alignx", "alignx, negatives of the micro-batch", "alignx, L_ntp alone"
EXPANDED, STOCK, TRL = "expand and concatenate, padded", "Trainer + PEFT, L_ntp alone", "TRL SFTTrainer, packed"
PADDED = (EXPANDED, STOCK)
"""Their micro-batches are counted in rows; those of the others, which pack, in tokens."""
