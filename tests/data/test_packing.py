"""Packing: nothing lost, nothing twice, little waste, losses and spans that stay inside their row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx_fast.data.packing import assign, collate, pack


def example(length, *, prompt=None, source=(0, 0), target=(0, 0), languages=(-1, -1), meaning=0, first=1000):
    return {
        "input_ids": list(range(first, first + length)),
        "prompt_length": length // 2 if prompt is None else prompt,
        "source": list(source),
        "target": list(target),
        "src_lang": languages[0],
        "tgt_lang": languages[1],
        "meaning": meaning,
    }


def realistic_lengths(n, seed=0):
    """Log-normal, as tokenised sentence pairs are: median about 60, some ten times that."""
    return np.clip(np.random.default_rng(seed).lognormal(4.1, 0.6, n).astype(int), 12, 512).tolist()


@given(st.lists(st.integers(1, 70), max_size=60), st.integers(1, 60))
@settings(max_examples=200, deadline=None)
def test_every_row_is_in_exactly_one_bin_within_the_budget(lengths, budget):
    bins = assign(lengths, budget)
    assert sorted(i for bin_ in bins for i in bin_) == list(range(len(lengths)))
    for bin_ in bins:
        assert sum(lengths[i] for i in bin_) <= budget or len(bin_) == 1
    assert assign(lengths, budget) == bins


@pytest.mark.parametrize(("rows", "budget"), [(128, 4096), (1024, 4096), (4096, 8192), (20_000, 2048)])
def test_fill_is_within_one_batch_of_full(rows, budget):
    lengths = realistic_lengths(rows)
    bins = assign(lengths, budget)
    assert len(bins) == -(-sum(lengths) // budget), "as many batches as the token count alone asks for"
    if rows >= 4096:
        assert sum(lengths) / (len(bins) * budget) >= 0.97


def test_batches_are_even():
    lengths = realistic_lengths(600)
    loads = [sum(lengths[i] for i in bin_) for bin_ in assign(lengths, 4096)]
    assert max(loads) - min(loads) <= 16


def test_a_row_over_the_budget_is_alone():
    batches = pack([example(5), example(40), example(6)], 12, train_on_prompt=True)
    assert [batch.rows for batch in batches] == [[1], [0, 2]]
    assert batches[0].num_tokens == 40


def test_tensors_of_a_batch():
    rows = [
        example(6, prompt=4, source=(1, 3), target=(4, 5), languages=(0, 2), meaning=7, first=100),
        example(3, prompt=1, first=200),
        example(5, prompt=3, source=(1, 2), target=(3, 4), languages=(1, 0), meaning=9, first=300),
    ]
    batch = collate(rows, train_on_prompt=True, rows=[11, 12, 13])
    assert batch.input_ids.tolist() == [[100, 101, 102, 103, 104, 105, 200, 201, 202, 300, 301, 302, 303, 304]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0, 1, 2, 3, 4]]
    assert batch.label_positions.tolist() == [1, 2, 3, 4, 5, 7, 8, 10, 11, 12, 13]
    assert batch.cu_seqlens.tolist() == [0, 6, 9, 14]
    assert batch.source_spans.tolist() == [[1, 3], [10, 11]]
    assert batch.target_spans.tolist() == [[4, 5], [12, 13]]
    assert batch.languages.tolist() == [0, 1, 2, 0]
    assert batch.meanings.tolist() == [7, 9]
    assert (batch.max_length, batch.rows, batch.num_tokens, batch.num_label_tokens) == (6, [11, 12, 13], 14, 11)
    dtypes = {name: value.dtype for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    assert {n for n, d in dtypes.items() if d == torch.int32} == {"cu_seqlens", "source_spans", "target_spans"}
    assert all(d == torch.int64 for n, d in dtypes.items() if n not in {"cu_seqlens", "source_spans", "target_spans"})


def test_without_the_prompt_only_responses_are_labels():
    rows = [example(6, prompt=4, first=100), example(3, prompt=1, first=200), example(2, prompt=0, first=300)]
    batch = collate(rows, train_on_prompt=False, rows=[0, 1, 2])
    assert batch.label_positions.tolist() == [4, 5, 7, 8, 10]


def test_masking_is_by_position_never_by_id():
    """With pad == eos the id says nothing: an end token inside and at the end of a row keeps its label."""
    row = example(4, prompt=1)
    row["input_ids"] = [1, 0, 5, 0]
    assert collate([row], train_on_prompt=True, rows=[0]).label_positions.tolist() == [1, 2, 3]


def test_rows_without_spans_make_an_empty_table():
    batch = pack([example(4), example(5)], 64, train_on_prompt=True)[0]
    assert batch.source_spans.shape == batch.target_spans.shape == (0, 2)
    assert batch.languages.shape == batch.meanings.shape == (0,)


def test_nothing_packs_to_nothing():
    assert pack([], 64, train_on_prompt=True) == []


def test_moving_keeps_every_field():
    batch = pack([example(4), example(5)], 64, train_on_prompt=True)[0]
    moved = batch.to("meta")
    assert all(value.device.type == "meta" for value in vars(moved).values() if isinstance(value, torch.Tensor))
    assert (moved.rows, moved.max_length) == (batch.rows, batch.max_length)


def test_wrong_arguments_are_quoted():
    with pytest.raises(ValueError, match="is 0"):
        pack([example(4)], 0, train_on_prompt=True)
    with pytest.raises(ValueError, match="2 row numbers for 1"):
        pack([example(4)], 8, train_on_prompt=True, rows=[0, 1])
