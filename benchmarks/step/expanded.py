"""AlignX as its published code does it: padded batches, every hidden state and all logits kept, losses over expanded tensors."""

from typing import Any

import torch
import torch.nn.functional as F
from alignx_kernels.language_matching import reference
from torch import nn
from transformers import Trainer

from alignx_fast.config import AlignSettings
from alignx_fast.losses.base import ModelShape
from alignx_fast.losses.matching import Matching


def expanded_losses(
    model: nn.Module, matching: Matching, batch: dict[str, torch.Tensor], settings: AlignSettings, layer: int
) -> dict[str, torch.Tensor]:
    """The three terms of one left-padded batch, and their weighted sum as `loss`."""
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "position_ids")}
    output = model(**inputs, output_hidden_states=True, use_cache=False)
    logits_BLV, labels_BL = output.logits.float(), batch["labels"]
    loss_ntp = F.cross_entropy(logits_BLV[:, :-1].flatten(0, 1), labels_BL[:, 1:].flatten(), ignore_index=-100)

    middle_BLD, last_BLD = output.hidden_states[layer], output.hidden_states[-1]
    source_ND = _means(middle_BLD, batch["source_spans"])
    target_ND = _means(middle_BLD, batch["target_spans"])
    n, d = source_ND.shape
    similarity_NN = F.cosine_similarity(source_ND[:, None].expand(n, n, d), target_ND[None].expand(n, n, d), dim=-1)
    logits_NN = similarity_NN / settings.contrastive.temperature
    loss_contrastive = F.cross_entropy(logits_NN.float(), torch.arange(n, device=logits_NN.device))

    sentences_MD = torch.cat([_means(last_BLD, batch[f"{side}_spans"] - 1) for side in ("source", "target")])
    loss_matching = reference.language_matching_loss(sentences_MD, batch["languages"], matching.gate, matching.up, matching.down)
    total = loss_ntp + settings.contrastive.weight * loss_contrastive + settings.matching.weight * loss_matching
    return {"loss": total, "loss_ntp": loss_ntp, "loss_contrastive": loss_contrastive, "loss_matching": loss_matching}


def _means(hidden_BLD: torch.Tensor, spans_B2: torch.Tensor) -> torch.Tensor:
    return torch.stack([row[start:end].mean(0) for row, (start, end) in zip(hidden_BLD, spans_B2.tolist(), strict=True)])


class ExpandedTrainer(Trainer):
    """A Trainer whose loss is `expanded_losses`; the mean over micro-batches, as that code takes it."""

    def __init__(self, *args: Any, settings: AlignSettings, align_layer: int, hidden_size: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.settings, self.align_layer = settings, align_layer
        shape = ModelShape(hidden_size, layers=align_layer, align_layer=align_layer)
        self.matching = Matching(settings.matching, shape).to(self.args.device)
        self.model_accepts_loss_kwargs = False  # Trainer then divides by the number of micro-batches

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, torch.Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        return expanded_losses(model, self.matching, inputs, self.settings, self.align_layer)["loss"]

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        created = self.optimizer is None
        optimizer = super().create_optimizer() if model is None else super().create_optimizer(model)
        if created:
            optimizer.add_param_group({"params": [p for p in self.matching.parameters() if p.requires_grad]})
        return optimizer
