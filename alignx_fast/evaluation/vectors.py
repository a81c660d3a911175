"""Sentence vectors -> retrieval, similarity by layer and the map."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from alignx_fast.data.rows import Meaning
from alignx_fast.evaluation.encode import Sentence, layer_vectors, present
from alignx_fast.evaluation.layers import similarity
from alignx_fast.evaluation.projection import sentence_map
from alignx_fast.evaluation.results import LayerScores, Retrieval, SentenceMap
from alignx_fast.evaluation.retrieval import retrieval
from alignx_fast.models.adapters import Model
from alignx_fast.models.capture import num_layers


class VectorScores(NamedTuple):
    """The scores that come from sentence vectors."""

    retrieval: Retrieval
    map: SentenceMap
    layers: LayerScores


def vector_scores(
    model: Model,
    sentences: Sequence[Sentence],
    languages: Sequence[str],
    meanings: Sequence[Meaning],
    align_layer: int,
    tokens_per_batch: int,
) -> VectorScores:
    """Similarity and retrieval at every layer, num_layers + 1 of them; retrieval by direction and the map at the align layer."""
    has_LN = present(sentences, len(languages), len(meanings))
    similarities, averages = [], []
    at_align_layer, plane = Retrieval(), SentenceMap()
    for layer, vectors_LND in layer_vectors(model, sentences, has_LN, range(num_layers(model) + 1), tokens_per_batch):
        vectors_LND = torch.nan_to_num(vectors_LND)  # a diverged model scores as bad as constant vectors, and is reported
        ranked = retrieval(vectors_LND, has_LN, languages)
        similarities.append(similarity(vectors_LND, has_LN))
        averages.append(ranked.average)
        if layer == align_layer:
            at_align_layer, plane = ranked, sentence_map(vectors_LND, has_LN, languages, meanings, layer)
    layers = LayerScores(
        similarity=tuple(scores.translations for scores in similarities),
        unrelated=tuple(scores.unrelated for scores in similarities),
        cka=tuple(scores.cka for scores in similarities),
        retrieval=tuple(averages),
    )
    return VectorScores(at_align_layer, plane, layers)
