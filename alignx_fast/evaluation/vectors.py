"""Held-out sentences, each read once -> retrieval, representations by layer, the map and perplexity.

Shape legend: L languages, N meanings, S sentences, H hard negatives, D hidden width.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import PreTrainedTokenizerBase

from alignx_fast.data.rows import Meaning
from alignx_fast.data.spans import Example
from alignx_fast.evaluation.anisotropy import Anisotropy, anisotropy
from alignx_fast.evaluation.encode import Reading, Sentence, encode, layers_at_once, longest_sentence, present, read
from alignx_fast.evaluation.hard_negatives import HardNegative, Kind, hard_negatives
from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.layers import Similarity, mean, similarity
from alignx_fast.evaluation.mexa import aligned, mexa
from alignx_fast.evaluation.perplexity import perplexity
from alignx_fast.evaluation.progress import Show, not_shown
from alignx_fast.evaluation.projection import sentence_map
from alignx_fast.evaluation.results import LanguagePerplexity, LanguageProbe, LayerScores, Retrieval, SentenceMap
from alignx_fast.evaluation.retrieval import Average, HardVectors, Score, Search, average, retrieval, search, top1, xsim, xsimpp
from alignx_fast.evaluation.separability import language_probe
from alignx_fast.models.adapters import Model
from alignx_fast.models.capture import num_layers

PROBED_LAST_LAYERS = 3


class VectorScores(NamedTuple):
    """The scores that come from one pass over the sentences."""

    retrieval: Retrieval
    map: SentenceMap
    layers: LayerScores
    perplexity: dict[str, LanguagePerplexity]


class LayerResult(NamedTuple):
    """What one layer's sentence vectors say."""

    similarity: Similarity
    averages: dict[Score, Average]
    """Top-1, xsim and xsim++ over the pairs of languages."""
    centred: Average
    """Top-1 once each language's mean is taken away."""
    aligned: dict[int, torch.Tensor]
    """By language: [n] bool, as `mexa.aligned` says; empty without a pivot."""
    anisotropy: Anisotropy
    probe: LanguageProbe | None


def vector_scores(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[Sentence],
    languages: Sequence[str],
    meanings: Sequence[Meaning],
    *,
    align_layer: int,
    pivot: str,
    tokens_per_batch: int,
    show: Show = not_shown,
) -> VectorScores:
    """Retrieval and representations at every layer, num_layers + 1 of them; every direction and the map at the align layer; perplexity.

    Args:
        sentences: as `encode.tokenise` makes them of `meanings` and `languages`.
        pivot: language with which MEXA compares the others.
        show: shows how many sentences are read.
    """
    has_LN = present(sentences, len(languages), len(meanings))
    pivot_index = languages.index(pivot) if pivot in languages else None
    probed = {align_layer, *range(num_layers(model) + 1 - PROBED_LAST_LAYERS, num_layers(model) + 1)}
    hard_language = english(languages)
    negatives = hard_negatives({s.meaning: s.text for s in sentences if s.language == hard_language})
    longest = longest_sentence(model)
    negative_examples = encode(tokenizer, [negative.text for negative in negatives], longest)

    results: list[LayerResult] = []
    at_align_layer, plane, predicted = Retrieval(), SentenceMap(), dict[str, LanguagePerplexity]()
    for reading, hard_reading in passes(model, [s.example for s in sentences], negative_examples, tokens_per_batch, show):
        if reading.nats_S is not None:
            predicted = perplexity(sentences, reading.nats_S, languages, longest)
        for layer in list(reading.vectors):
            vectors_LND = grid(reading.vectors.pop(layer), sentences, has_LN)
            hard = hard_vectors(hard_reading.vectors.pop(layer), hard_language, negatives)
            with torch.autocast(model.device.type, enabled=False):  # cosines in bf16 would nearly all be equal
                searches = search(vectors_LND, has_LN, hard, model.device)
                probed_layer = layer if layer in probed else None
                results.append(layer_result(searches, vectors_LND, has_LN, pivot_index, probed_layer, model.device))
            if layer == align_layer:
                at_align_layer = retrieval(searches, languages)
                plane = sentence_map(vectors_LND, has_LN, languages, meanings, layer)

    against_pivot = mexa([result.aligned for result in results], languages)
    further = {"hard_negatives": counts(negatives), "pivot": pivot if against_pivot else None, "mexa": against_pivot}
    return VectorScores(at_align_layer.model_copy(update=further), plane, layer_scores(results, has_LN), predicted)


def passes(
    model: Model, examples: Sequence[Example], negatives: Sequence[Example], tokens_per_batch: int, show: Show = not_shown
) -> Iterator[tuple[Reading, Reading]]:
    """Readings of the sentences and of the hard negatives, in layer order: of all layers at once as long as their vectors fit `VECTOR_BYTES`.

    The first reading of the sentences has the losses.
    """
    layers = range(num_layers(model) + 1)
    at_once = layers_at_once(len(examples) + len(negatives), model.config.get_text_config().hidden_size)
    for first in range(0, len(layers), at_once):
        group = layers[first : first + at_once]
        title = "reading sentences" + (f", layers {group[0]} to {group[-1]}" if at_once < len(layers) else "")
        with show(title, len(examples) + len(negatives)) as advance:
            sentences = read(model, examples, group, tokens_per_batch, losses=first == 0, advance=advance)
            hard = read(model, negatives, group, tokens_per_batch, advance=advance)
        yield sentences, hard


def grid(vectors_SD: torch.Tensor, sentences: Sequence[Sentence], has_LN: torch.Tensor) -> torch.Tensor:
    """[L, N, D]: the vectors at their language and meaning, zero where there is none."""
    vectors_LND = vectors_SD.new_zeros(*has_LN.shape, vectors_SD.shape[1])
    places = torch.tensor([s.language for s in sentences]), torch.tensor([s.meaning for s in sentences])
    # A diverged model scores as bad as constant vectors, and is reported.
    vectors_LND[places] = torch.nan_to_num(vectors_SD)
    return vectors_LND


def centred(vectors_LND: torch.Tensor, has_LN: torch.Tensor) -> torch.Tensor:
    """The vectors less the mean of their language, zero where there is none: what is left says how a sentence differs from others."""
    counts_L11 = has_LN.sum(1).clamp(min=1)[:, None, None]
    means_L1D = vectors_LND.sum(1, keepdim=True) / counts_L11
    return (vectors_LND - means_L1D) * has_LN[:, :, None]


def english(languages: Sequence[str]) -> int | None:
    """The first language that is English, for which there are hard negatives; None where nothing could be searched for in it."""
    if len(languages) < 2:
        return None
    return next((language for language, code in enumerate(languages) if code.split("-")[0] == "en"), None)


def counts(negatives: Sequence[HardNegative]) -> dict[str, int]:
    """Hard negatives of each kind; empty where there are none at all."""
    by_kind = Counter(negative.kind for negative in negatives)
    return {kind.value: by_kind[kind] for kind in Kind} if negatives else {}


def hard_vectors(vectors_HD: torch.Tensor, language: int | None, negatives: Sequence[HardNegative]) -> HardVectors | None:
    """The hard negatives of a language with their vectors; None where there are none."""
    if language is None or not negatives:
        return None
    return HardVectors(
        language=language,
        meanings_H=torch.tensor([negative.sentence for negative in negatives]),
        kinds=[negative.kind for negative in negatives],
        vectors_HD=torch.nan_to_num(vectors_HD),
    )


def layer_result(
    searches: Sequence[Search],
    vectors_LND: torch.Tensor,
    has_LN: torch.Tensor,
    pivot: int | None,
    probed_layer: int | None,
    device: torch.device,
) -> LayerResult:
    """All scores of one layer; the languages are told apart only where `probed_layer` gives its number."""
    return LayerResult(
        similarity=similarity(vectors_LND, has_LN, device),
        averages={score: average(searches, score) for score in (top1, xsim, xsimpp)},
        centred=average(search(centred(vectors_LND, has_LN), has_LN, device=device), top1),
        aligned=aligned(searches, pivot) if pivot is not None else {},
        anisotropy=anisotropy(vectors_LND, has_LN, device),
        probe=language_probe(vectors_LND, has_LN, probed_layer, device) if probed_layer is not None else None,
    )


def layer_scores(results: Sequence[LayerResult], has_LN: torch.Tensor) -> LayerScores:
    """The results of all layers side by side."""
    sentences_aligned = [[hits.double().tolist() for hits in result.aligned.values()] for result in results]
    return LayerScores(
        similarity=tuple(result.similarity.translations for result in results),
        unrelated=tuple(result.similarity.unrelated for result in results),
        cka=tuple(result.similarity.cka for result in results),
        retrieval=tuple(result.averages[top1].value for result in results),
        retrieval_interval=tuple(result.averages[top1].interval for result in results),
        retrieval_centred=tuple(result.centred.value for result in results),
        retrieval_centred_interval=tuple(result.centred.interval for result in results),
        xsim=tuple(result.averages[xsim].value for result in results),
        xsim_interval=tuple(result.averages[xsim].interval for result in results),
        xsimpp=tuple(result.averages[xsimpp].value for result in results),
        xsimpp_interval=tuple(result.averages[xsimpp].interval for result in results),
        mexa=tuple(mean([sum(hits) / len(hits) for hits in groups]) for groups in sentences_aligned),
        mexa_interval=tuple(bootstrap_mean(groups) for groups in sentences_aligned),
        same_language=tuple(result.anisotropy.same_language for result in results),
        first_component=tuple(result.anisotropy.first_component for result in results),
        probes=tuple(result.probe for result in results if result.probe is not None),
        n=int((has_LN.sum(0) >= 2).sum()),
    )
