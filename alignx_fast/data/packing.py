"""Rows laid end to end without padding, in as few micro-batches of a token budget as they fit in.

Shape legend: T tokens of a packed batch, K of them trained on, B rows in it, N rows of these that carry a source and a target span.
"""

import bisect
import copy
import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from alignx_fast.data.spans import Example


@dataclass
class PackedBatch:
    """Rows in one sequence without padding; all tensors on one device."""

    input_ids: torch.Tensor
    """int64 [1, T]."""
    position_ids: torch.Tensor
    """int64 [1, T], from 0 in every row."""
    label_positions: torch.Tensor
    """int64 [K], rising: the tokens that the next-token loss is taken over, never a row's first, which has none before it."""
    cu_seqlens: torch.Tensor
    """int32 [B + 1], row b holds positions cu_seqlens[b] to cu_seqlens[b + 1]."""
    max_length: int
    """Tokens of the longest row."""
    source_spans: torch.Tensor
    """int32 [N, 2], start and end positions in T, end exclusive."""
    target_spans: torch.Tensor
    """int32 [N, 2], the same for the targets, without the end token."""
    languages: torch.Tensor
    """int64 [2N], sources first, then targets."""
    meanings: torch.Tensor
    """int64 [N]; equal numbers say the same thing."""
    rows: list[int]
    """Dataset index of each of the B rows."""

    @property
    def num_tokens(self) -> int:
        """T: all tokens of the batch."""
        return self.input_ids.shape[1]

    @property
    def num_label_tokens(self) -> int:
        """K: tokens that the next-token loss is taken over."""
        return len(self.label_positions)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "PackedBatch":
        """The same batch on another device."""
        moved = copy.copy(self)
        for name, value in vars(self).items():
            if isinstance(value, torch.Tensor):
                setattr(moved, name, value.to(device, non_blocking=non_blocking))
        return moved


def pack(
    examples: Sequence[Example],
    tokens_per_micro_batch: int,
    *,
    train_on_prompt: bool,
    rows: Sequence[int] | None = None,
    processes: int = 1,
) -> list[PackedBatch]:
    """Every example in exactly one batch of at most `tokens_per_micro_batch` tokens; a longer example is a batch of its own.

    `rows` are the examples' dataset indices, default 0, 1, ...; `processes` share the batches, each as many where there are rows enough.

    Raises:
        ValueError: the budget is not positive, or `rows` and `examples` differ in length.
    """
    if tokens_per_micro_batch <= 0:
        raise ValueError(f"tokens_per_micro_batch is {tokens_per_micro_batch}: it must be at least 1")
    rows = range(len(examples)) if rows is None else rows
    if len(rows) != len(examples):
        raise ValueError(f"{len(rows)} row numbers for {len(examples)} examples: give one for each")
    bins = assign([len(example["input_ids"]) for example in examples], tokens_per_micro_batch, processes)
    return [collate([examples[i] for i in bin_], train_on_prompt=train_on_prompt, rows=[rows[i] for i in bin_]) for bin_ in bins]


def collate(examples: Sequence[Example], *, train_on_prompt: bool, rows: Sequence[int]) -> PackedBatch:
    """Lay `examples` end to end in one batch, in the given order."""
    lengths = np.array([len(example["input_ids"]) for example in examples], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    input_ids = np.concatenate([np.asarray(example["input_ids"], dtype=np.int64) for example in examples])
    positions = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    untrained = np.ones(len(examples), dtype=np.int64)
    if not train_on_prompt:
        untrained = np.maximum(untrained, [example["prompt_length"] for example in examples])
    label_positions = (positions >= np.repeat(untrained, lengths)).nonzero()[0]

    source = np.array([example["source"] for example in examples], dtype=np.int64)
    target = np.array([example["target"] for example in examples], dtype=np.int64)
    paired = (source[:, 1] > source[:, 0]) & (target[:, 1] > target[:, 0])
    pairs = [example for example, has_spans in zip(examples, paired, strict=True) if has_spans]
    languages = [example["src_lang"] for example in pairs] + [example["tgt_lang"] for example in pairs]
    meanings = [example["meaning"] for example in pairs]
    return PackedBatch(
        input_ids=torch.from_numpy(input_ids)[None],
        position_ids=torch.from_numpy(positions)[None],
        label_positions=torch.from_numpy(label_positions),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
        max_length=int(lengths.max()),
        source_spans=torch.from_numpy((source + starts[:, None])[paired].astype(np.int32)),
        target_spans=torch.from_numpy((target + starts[:, None])[paired].astype(np.int32)),
        languages=torch.tensor(languages, dtype=torch.int64),
        meanings=torch.tensor(meanings, dtype=torch.int64),
        rows=[int(row) for row in rows],
    )


def assign(lengths: Sequence[int], budget: int, processes: int = 1) -> list[list[int]]:
    """Indices of `lengths` in bins of at most `budget`, as few bins as best-fit decreasing needs, then evened out.

    An item above the budget gets a bin of its own. Indices rise inside every bin. The number of bins is a multiple of `processes`, or that of
    the items where they are fewer.
    """
    long = [[i] for i, length in enumerate(lengths) if length > budget]
    order = sorted((i for i, length in enumerate(lengths) if length <= budget), key=lambda i: (-lengths[i], i))
    bins = _best_fit(lengths, order, budget)
    extra = -(len(long) + len(bins)) % processes
    even = _spread(lengths, order, min(len(bins) + extra, len(order)))
    while extra and any(sum(lengths[i] for i in bin_) > budget for bin_ in even):
        even = _spread(lengths, order, min(len(even) + processes, len(order)))
    if extra or all(sum(lengths[i] for i in bin_) <= budget for bin_ in even):
        bins = even
    return [sorted(bin_) for bin_ in [*long, *bins]]


def _best_fit(lengths: Sequence[int], order: Sequence[int], budget: int) -> list[list[int]]:
    """Each item, longest first, into the fullest bin that still takes it."""
    bins: list[list[int]] = []
    free: list[tuple[int, int]] = []  # (tokens left, bin), sorted
    for i in order:
        at = bisect.bisect_left(free, (lengths[i], -1))
        if at < len(free):
            left, b = free.pop(at)
        else:
            left, b = budget, len(bins)
            bins.append([])
        bins[b].append(i)
        bisect.insort(free, (left - lengths[i], b))
    return bins


def _spread(lengths: Sequence[int], order: Sequence[int], n_bins: int) -> list[list[int]]:
    """Each item, longest first, into the emptiest of `n_bins` bins: micro-batches of equal cost."""
    bins: list[list[int]] = [[] for _ in range(n_bins)]
    loads = [(0, b) for b in range(n_bins)]
    for i in order:
        load, b = heapq.heappop(loads)
        bins[b].append(i)
        heapq.heappush(loads, (load + lengths[i], b))
    return bins
