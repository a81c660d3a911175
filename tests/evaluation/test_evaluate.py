"""Evaluation of a tiny random model, against independent computations on single sentences."""

import json
import random
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.rows import Meaning
from alignx_fast.data.templates import Template
from alignx_fast.errors import UserError
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.results import EvaluatedAt, Evaluation, Retrieval

SETTINGS = EvaluationSettings(sentences=5, translation_sentences=3, max_new_tokens=8, tokens_per_batch=64)


def run(model, tokenizer, meanings, settings=SETTINGS, **options):
    arguments = {"languages": None, "align_layer": 2, "template": Template.alpaca(), "translate": False}
    return evaluate(model, tokenizer, meanings, settings, evaluated_at=EvaluatedAt.BEFORE, **arguments | options)


def test_equal_texts_are_found_and_constant_texts_are_not(model, tokenizer, meanings):
    copies = [Meaning(m.id, {"en": m.texts["en"], "de": m.texts["en"]}) for m in meanings]
    scores = run(model, tokenizer, copies)
    assert scores.retrieval.average == 1
    assert scores.layers.similarity == pytest.approx((1.0,) * 4, abs=1e-5)
    assert all(value < 0.99 for value in scores.layers.unrelated)
    constant = [Meaning(m.id, {"en": "Call me.", "de": "Ruf an."}) for m in meanings]
    layers = run(model, tokenizer, constant).layers
    assert layers.retrieval == layers.mexa == (0, 0, 0, 0)
    assert layers.xsim == (1, 1, 1, 1)


def test_everything_in_the_agreed_form(model, tokenizer, meanings):
    titles = []

    @contextmanager
    def show(title, total):
        titles.append(title)
        yield lambda count: None

    scores = run(model, tokenizer, meanings, translate=True, show=show)
    tree = scores.to_json()
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
    assert Evaluation.from_json(tree) == scores
    assert (scores.evaluated_at, scores.align_layer, scores.num_layers, scores.sentences) == ("before", 2, 3, 5)
    assert scores.languages == ("de", "en", "sw")
    assert scores.retrieval.chance == pytest.approx(1 / 5)
    assert scores.retrieval.average == scores.layers.retrieval[2]
    assert {len(value) for name, value in scores.layers if isinstance(value, tuple) and name != "probes"} == {4}
    assert None not in [value for name, values in scores.layers if name != "n" for value in values]
    assert [probe.layer for probe in scores.layers.probes] == [1, 2, 3]  # the last three, the align layer among them
    assert scores.layers.n == scores.layers.probes[0].n / 3 == 5
    assert scores.opening_token == "<s>"
    assert scores.retrieval.average_interval == scores.layers.retrieval_interval[2]
    assert scores.retrieval.xsim == scores.layers.xsim[2]
    assert scores.retrieval.xsimpp == scores.layers.xsimpp[2]
    assert {pair for pair, score in scores.retrieval.pairs.items() if score.xsimpp is not None} == {"de-en", "sw-en"}
    assert scores.retrieval.hard_negatives == {"causality": 1, "entity": 0, "number": 1}
    assert scores.retrieval.pivot == "en"
    assert set(scores.retrieval.mexa) == {"de", "sw"}
    assert sum(score.mean for score in scores.retrieval.mexa.values()) / 2 == pytest.approx(sum(scores.layers.mexa) / 4)
    assert set(scores.translation) == {"en-de", "de-en", "en-sw", "sw-en"}
    direction = scores.translation["en-de"]
    assert direction.n == len(direction.examples) == 3
    assert direction.examples[0].reference == meanings[0].texts["de"]
    assert len(scores.map.points) == 15
    assert titles


def test_two_calls_agree_and_leave_no_trace(model, tokenizer, meanings):
    model.train()
    model.model.layers[1].eval()
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()
    first, second = (run(model, tokenizer, meanings, translate=True) for _ in range(2))
    assert first.to_json() | {"seconds": 0} == second.to_json() | {"seconds": 0}
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.equal(torch.get_rng_state(), before[2])
    assert model.training
    assert model.model.layers[0].training
    assert not model.model.layers[1].training
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()


def test_missing_languages_are_named(model, tokenizer, meanings):
    scores = run(model, tokenizer, meanings, languages=["en", "fr"], translate=True)
    assert scores.languages == ("en",)
    assert scores.retrieval == Retrieval(chance=None, average=None, pairs={})
    assert scores.translation == {}
    assert scores.perplexity["en"].tokens > 0
    assert any("in fr" in note for note in scores.notes)
    assert any("No retrieval" in note for note in scores.notes)
    with pytest.raises(UserError, match=r"no held-out sentences in fr"):
        run(model, tokenizer, meanings, languages=["fr"])
    with pytest.raises(UserError, match=r"data\.evaluation"):
        run(model, tokenizer, [])


def test_sentences_in_most_languages_come_first(model, tokenizer, meanings):
    poor = [Meaning("poor", {"en": "Only this."}), *meanings]
    scores = run(model, tokenizer, poor, EvaluationSettings(sentences=3))
    assert {point.id for point in scores.map.points} == {"0", "1", "3"}  # from all over the complete ones
    scores = run(model, tokenizer, poor, EvaluationSettings(sentences=6))
    assert {point.id for point in scores.map.points} == {"poor", "0", "1", "2", "3", "4"}


def test_a_silent_model_is_named(model, tokenizer, meanings):
    model.generation_config.eos_token_id = list(range(len(tokenizer)))  # whatever it says ends the answer
    scores = run(model, tokenizer, meanings, translate=True)
    assert scores.translation["en-de"].chrf == 0
    assert any("with nothing" in note for note in scores.notes)


def test_a_diverged_model_is_scored_as_knowing_nothing(model, tokenizer, meanings):
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(torch.nan)
    scores = run(model, tokenizer, meanings)
    assert scores.retrieval.average == 0
    assert scores.retrieval.xsim == scores.retrieval.xsimpp == 1
    assert [probe.accuracy for probe in scores.layers.probes] == pytest.approx([1 / 3] * 3)
    assert scores.perplexity["de"].perplexity is None
    assert any("not finite" in note for note in scores.notes)
    json.dumps(scores.to_json(), allow_nan=False)
