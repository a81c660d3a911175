"""A model is tried on a handful of tokens before it is trained: what would train wrongly in silence is refused here."""

from types import SimpleNamespace

import torch
from transformers import PreTrainedModel

from alignx_fast.errors import UserError
from alignx_fast.models.forward import generation_mode, head_logits, packed_forward


@torch.no_grad()
def check_packed_forward(model: PreTrainedModel) -> None:
    """Check that packed sequences stay apart, and that body plus head give the model's own logits.

    Raises:
        UserError: the family does something that packed training does not reproduce, or the weights give no finite logits.
    """
    was_training = model.training
    model.eval()  # type: ignore[no-untyped-call]
    device, lengths = model.device, [5, 7]
    ids = torch.arange(3, 3 + sum(lengths), device=device) % model.config.get_text_config().vocab_size
    try:
        logits = head_logits(model, packed_forward(model, _pack(ids, lengths))).float()
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        raise UserError(
            f"{type(model).__name__} does not run on packed sequences ({error}); this model family is not supported."
        ) from None
    with generation_mode(model):
        alone = [model(input_ids=part[None], use_cache=False).logits[0].float() for part in ids.split(lengths)]
    model.train(was_training)
    expected = torch.cat(alone)
    if not (logits.isfinite().all() and expected.isfinite().all()):
        raise UserError(
            f"The logits of {model.name_or_path or type(model).__name__} are not finite: its weights are damaged, or it has diverged."
        )
    # The two paths round differently; sequences that see each other, or a missing scale, differ by the size of the logits.
    if not (logits - expected).norm() <= 0.1 * expected.norm() + 1e-6:
        raise UserError(
            f"{type(model).__name__} computes other logits on packed sequences than on single ones, so training would go wrong "
            "in silence; this model family is not supported."
        )


def _pack(ids: torch.Tensor, lengths: list[int]) -> SimpleNamespace:
    positions = torch.cat([torch.arange(n, device=ids.device) for n in lengths])
    cu_seqlens = torch.tensor([0, *lengths], device=ids.device).cumsum(0).int()
    return SimpleNamespace(input_ids=ids[None], position_ids=positions[None], cu_seqlens=cu_seqlens, max_length=max(lengths))
