"""Losses of open_clip (3.3) on these kernels: the same names and arguments, and the same values and gradients for a model.

    from alignx_kernels.integrations.open_clip import ClipLoss

`ClipLoss` never stores the similarities. `SigLipLoss` computes them in plain PyTorch, a chunk of rows at a time: there is no kernel for it.
Features must have length 1, as open_clip's models return them: `ClipLoss` compares directions only, and its gradient at a feature has no part
along the feature, which the normalisation in the model would remove.
"""

from typing import Any

import torch
from open_clip import loss as library

from ..info_nce import info_nce_loss
from .embedding_losses import in_one_dtype, own_first, sigmoid

__all__ = ["ClipLoss", "SigLipLoss"]


class ClipLoss(library.ClipLoss):  # type: ignore[misc]  # open_clip has no types
    """open_clip's class of this name, on `info_nce_loss`."""

    def forward(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: float | torch.Tensor,
        logit_bias: torch.Tensor | None = None,
        output_dict: bool = False,
    ) -> torch.Tensor | dict[str, torch.Tensor]:
        """Mean cross entropy of images against texts and of texts against images; the scale gets its gradient."""
        temperature = 1 / (logit_scale.float() if isinstance(logit_scale, torch.Tensor) else logit_scale)
        images, texts = in_one_dtype(image_features, text_features)
        if self.world_size == 1:
            loss = info_nce_loss(images, texts, temperature=temperature, symmetric=True)
        else:
            loss = self._over_processes(images, texts, temperature)
        if logit_bias is not None:
            loss = (
                loss + 0 * logit_bias.sum()
            )  # it adds the same to every logit; its gradient, 0, is what DistributedDataParallel waits for
        return {"contrastive_loss": loss} if output_dict else loss

    def _over_processes(self, images: torch.Tensor, texts: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
        options: dict[str, Any] = {"use_horovod": True} if getattr(self, "use_horovod", False) else {}
        all_images, all_texts = library.gather_features(
            images,
            texts,
            local_loss=self.local_loss,
            gather_with_grad=self.gather_with_grad,
            rank=self.rank,
            world_size=self.world_size,
            **options,
        )
        if not self.local_loss:
            return info_nce_loss(all_images, all_texts, temperature=temperature, symmetric=True)
        offset = self.rank * len(images)
        directions = ((images, all_texts), (texts, all_images))
        losses = (info_nce_loss(left, own_first(right, offset), temperature=temperature) for left, right in directions)
        return torch.stack(list(losses)).mean()


class SigLipLoss(library.SigLipLoss):  # type: ignore[misc]
    """open_clip's class of this name, in chunks of rows whatever its `chunk_size`."""

    def _loss(
        self,
        image_features: torch.Tensor,
        text_features: torch.Tensor,
        logit_scale: float | torch.Tensor,
        logit_bias: torch.Tensor | None = None,
        negative_only: bool = False,
    ) -> torch.Tensor:
        return sigmoid(image_features, text_features, logit_scale, logit_bias, negatives_only=negative_only)
