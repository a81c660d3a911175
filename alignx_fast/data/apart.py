"""The sentences of packed translation rows as sequences of their own."""

import torch

from alignx_fast.data.packing import PackedBatch


def sentences_apart(batch: PackedBatch, opening_token: int) -> PackedBatch:
    """Every source, then every target of a batch in CPU memory, each alone behind one opening token that no span covers.

    The tokens are those of the row, so that nothing is tokenised again. No token is a label.
    """
    spans_S2 = torch.cat([batch.source_spans, batch.target_spans]).long()
    lengths_S = spans_S2[:, 1] - spans_S2[:, 0] + 1
    ends_S = lengths_S.cumsum(0)
    starts_S = ends_S - lengths_S
    position_T = torch.arange(int(lengths_S.sum())) - starts_S.repeat_interleave(lengths_S)
    # Position p of a sentence is token p - 1 of its span; position 0 looks up a token too, which the opening token then replaces.
    place_T = (spans_S2[:, 0].repeat_interleave(lengths_S) + position_T - 1).clamp(min=0)
    input_ids_T = torch.where(position_T == 0, opening_token, batch.input_ids[0, place_T])
    spans = torch.stack([starts_S + 1, ends_S], 1).int()
    source_spans, target_spans = spans.chunk(2)
    return PackedBatch(
        input_ids=input_ids_T[None],
        position_ids=position_T[None],
        label_positions=torch.empty(0, dtype=torch.int64),
        cu_seqlens=torch.cat([torch.zeros(1, dtype=torch.int64), ends_S]).int(),
        max_length=int(lengths_S.max()),
        source_spans=source_spans,
        target_spans=target_spans,
        languages=batch.languages,
        meanings=batch.meanings,
        rows=[*batch.rows, *batch.rows],
    )
