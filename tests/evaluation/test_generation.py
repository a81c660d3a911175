"""Generation against greedy steps and the library's own beam search, on single prompts."""

import pytest
import torch
from transformers import GenerationConfig

from alignx_fast.evaluation.generation import answers, batches_by_length, cut


@torch.no_grad()
def test_generation_equals_greedy_steps_for_any_batch(model, plain, tokenizer):
    model.eval()
    prompts = [tokenizer(text)["input_ids"] for text in ("Set", "Wie ist das Wetter in", "a b c d e f g h i j")]
    expected = []
    for prompt in prompts:
        ids = list(prompt)
        for _ in range(12):
            ids.append(plain(input_ids=torch.tensor([ids])).logits[0, -1].argmax().item())
        expected.append(cut(tokenizer, ids[len(prompt) :], [tokenizer.eos_token_id]).text)
    for tokens_per_batch in (1, 80, 1000):
        found = answers(model, tokenizer, prompts, max_new_tokens=12, tokens_per_batch=tokens_per_batch)
        assert [answer.text for answer in found] == expected
    assert len(set(expected)) == 3


def test_answers_end_at_the_end_token_and_at_a_new_section(tokenizer):
    ids = tokenizer("Guten Tag.", add_special_tokens=False)["input_ids"]
    section = tokenizer("\n\n### Instruction:\nmore", add_special_tokens=False)["input_ids"]
    assert cut(tokenizer, [*ids, 1, *ids], [1]).text == "Guten Tag."
    assert cut(tokenizer, ids + section, [1]).text == "Guten Tag."
    assert cut(tokenizer, section + ids, [1]).text == ""
    assert cut(tokenizer, [1, *ids], [1]).text == ""
    heading = tokenizer("### Kapitel 1\n### Kapitel 2", add_special_tokens=False)["input_ids"]
    assert cut(tokenizer, heading + section, [1]).text == "### Kapitel 1\n### Kapitel 2"


def test_generation_batches_hold_every_row_within_the_budget():
    prompts = [[7] * n for n in (5, 30, 12, 12, 3, 80)]
    groups = batches_by_length(prompts, max_new_tokens=10, tokens_per_batch=60)
    assert sorted(row for group in groups for row in group) == list(range(6))
    assert groups[0] == [5]  # longer than the budget: alone
    assert all(len(group) == 1 or (max(len(prompts[row]) for row in group) + 10) * len(group) <= 60 for group in groups)
    assert len(groups) < 6


@torch.no_grad()
@pytest.mark.parametrize("tokens_per_batch", [1, 300, 5000])
def test_beam_search_equals_the_librarys_own_on_single_prompts(model, plain, tokenizer, tokens_per_batch):
    model.eval()
    prompts = [tokenizer(text)["input_ids"] for text in ("Set", "Wie ist das Wetter in", "a b c d e f g h i j")]
    config = GenerationConfig(max_new_tokens=12, num_beams=4, do_sample=False, pad_token_id=1, eos_token_id=1)
    expected = []
    for prompt in prompts:
        output = plain.generate(input_ids=torch.tensor([prompt]), generation_config=config)
        expected.append(cut(tokenizer, output[0, len(prompt) :].tolist(), [1]).text)
    found = answers(model, tokenizer, prompts, max_new_tokens=12, tokens_per_batch=tokens_per_batch, beams=4)
    assert [answer.text for answer in found] == expected
    greedy = answers(model, tokenizer, prompts, max_new_tokens=12, tokens_per_batch=tokens_per_batch)
    assert [answer.text for answer in greedy] != expected


def test_a_batch_holds_every_beam(model, tokenizer, monkeypatch):
    sizes = []
    own = model.generate
    monkeypatch.setattr(
        model, "generate", lambda **arguments: sizes.append(arguments["input_ids"].shape) or own(**arguments), raising=False
    )
    answers(model, tokenizer, [[5, 6, 7]] * 6, max_new_tokens=2, tokens_per_batch=40, beams=4)
    assert sizes == [(2, 3)] * 3  # 2 prompts x 4 beams x (3 + 2) tokens


@pytest.mark.parametrize("beams", [1, 3])
def test_an_answer_that_never_stops_is_bounded_and_known(model, tokenizer, beams):
    counts = []
    prompts = [[5, 6], [7, 8, 9]]
    endless = answers(model, tokenizer, prompts, max_new_tokens=4, tokens_per_batch=100, beams=beams, advance=counts.append)
    assert [answer.finished for answer in endless] == [False, False]
    assert counts == [2]
    model.generation_config.eos_token_id = list(range(len(tokenizer) // 2))  # half of all it can say ends the answer
    ended = answers(model, tokenizer, prompts, max_new_tokens=40, tokens_per_batch=200, beams=beams)
    assert [answer.finished for answer in ended] == [True, True]


def test_a_new_section_finishes_an_answer(tokenizer):
    ids = tokenizer("Guten Tag.", add_special_tokens=False)["input_ids"]
    section = tokenizer("\n\n### Input:\nmore", add_special_tokens=False)["input_ids"]
    assert not cut(tokenizer, ids, [1]).finished
    assert cut(tokenizer, ids + section, [1]).finished
    assert cut(tokenizer, [*ids, 1, 1], [1]).finished
