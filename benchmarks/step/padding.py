"""Padded batches, as most training code makes them."""

import torch

from alignx_fast.data.spans import Example

IGNORED = -100


def padded(examples: list[Example], *, left: bool) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask, labels and position_ids [B, L]; spans [B, 2] in columns; languages [2B], sources first."""
    longest = max(len(example["input_ids"]) for example in examples)
    shape = (len(examples), longest)
    batch = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORED),
    }
    shifts = []
    for row, example in enumerate(examples):
        ids = torch.tensor(example["input_ids"])
        shift = longest - len(ids) if left else 0
        place = slice(shift, shift + len(ids))
        batch["input_ids"][row, place] = ids
        batch["attention_mask"][row, place] = 1
        batch["labels"][row, place] = ids
        # The first token is predicted by nothing; with padding on the left, a shifted loss would predict it from padding.
        batch["labels"][row, shift] = IGNORED
        shifts.append([shift, shift])
    batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    for side in ("source", "target"):
        batch[f"{side}_spans"] = torch.tensor([example[side] for example in examples]) + torch.tensor(shifts)
    batch["languages"] = torch.tensor([example[side] for side in ("src_lang", "tgt_lang") for example in examples])
    return batch
