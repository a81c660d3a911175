"""Whether two models' translations of the same sentences differ by more than chance, by sacrebleu's paired tests."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from alignx_fast.errors import UserError
from alignx_fast.evaluation.results import DirectionTranslation, PairedDifference
from alignx_fast.evaluation.scoring import TITLES, TOKENIZERS, metrics, one_line, resample
from alignx_fast.evaluation.spbleu import PieceTokenizer

ALL_DIRECTIONS = "all directions"


class Method(StrEnum):
    """How chance is imitated."""

    BOOTSTRAP = "paired bootstrap"
    """Sentences drawn again with replacement (Koehn 2004)."""
    RANDOMISATION = "paired approximate randomisation"
    """Translations of the two models exchanged at random (Riezler and Maxwell 2005)."""


SACREBLEU_NAMES: dict[Method, Literal["bs", "ar"]] = {Method.BOOTSTRAP: "bs", Method.RANDOMISATION: "ar"}


def paired_tests(
    baseline: Mapping[str, DirectionTranslation],
    model: Mapping[str, DirectionTranslation],
    method: Method,
    *,
    spbleu: PieceTokenizer | None = None,
    trials: int = 0,
) -> dict[str, tuple[PairedDifference, ...]]:
    """Tests in every direction that both evaluations have, and of all these sentences together under `ALL_DIRECTIONS`.

    The p-values are sacrebleu's, but for models of equal score, whose p-value is 1. BLEU and TER of all sentences together are
    there only where every direction is tokenised alike.

    Args:
        spbleu: tokenizer of spBLEU, which is left out without it.
        trials: resamples; 0 is sacrebleu's default, 1,000 for the bootstrap and 10,000 for the randomisation.

    Raises:
        UserError: the evaluations share no direction, or their sentences differ.
    """
    names = [name for name in baseline if name in model]
    if not names:
        raise UserError(
            f"No direction was translated by both models ({', '.join(baseline) or 'none'} and {', '.join(model) or 'none'}): "
            "evaluate both with the same evaluation.translation_directions."
        )
    pairs = {name: _Pair.of(name, baseline[name], model[name]) for name in names}
    if len(names) > 1:
        pairs[ALL_DIRECTIONS] = _Pair.joined(list(pairs.values()))
    return {name: tuple(pair.tests(method, spbleu, trials)) for name, pair in pairs.items()}


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two models' translations of the same sentences."""

    baseline: list[str]
    model: list[str]
    references: list[str]
    tokenizer: str | None
    """BLEU's; None where it is not one and the same."""

    @classmethod
    def of(cls, name: str, baseline: DirectionTranslation, model: DirectionTranslation) -> "_Pair":
        sentences = [[(example.source, example.reference) for example in each.examples] for each in (baseline, model)]
        if not sentences[0] or sentences[0] != sentences[1]:
            raise UserError(
                f"The models did not translate the same sentences in {name} ({len(sentences[0])} and {len(sentences[1])}): "
                "evaluate both on the same held-out sentences, with the same evaluation.translation_sentences."
            )
        shared = baseline.tokenizer if baseline.tokenizer == model.tokenizer and baseline.tokenizer in TOKENIZERS else None
        return cls(
            baseline=one_line([example.hypothesis for example in baseline.examples]),
            model=one_line([example.hypothesis for example in model.examples]),
            references=one_line([reference for _, reference in sentences[0]]),
            tokenizer=shared,
        )

    @classmethod
    def joined(cls, pairs: Sequence["_Pair"]) -> "_Pair":
        tokenizers = {pair.tokenizer for pair in pairs}
        return cls(
            baseline=[text for pair in pairs for text in pair.baseline],
            model=[text for pair in pairs for text in pair.model],
            references=[text for pair in pairs for text in pair.references],
            tokenizer=tokenizers.pop() if len(tokenizers) == 1 else None,
        )

    def tests(self, method: Method, spbleu: PieceTokenizer | None, trials: int) -> Iterator[PairedDifference]:
        for name, metric in metrics(self.tokenizer, spbleu).items():
            systems = [self.baseline, self.model]
            (baseline, model), signature = resample(metric, systems, self.references, SACREBLEU_NAMES[method], trials)
            difference = float(model.score) - float(baseline.score)
            yield PairedDifference(
                metric=TITLES[name],
                baseline=baseline.score,
                score=model.score,
                difference=difference,
                # sacrebleu counts differences that are larger, so that between equal scores it finds the smallest p-value.
                p_value=1.0 if model.p_value is None or difference == 0 else model.p_value,
                method=method,
                n=len(self.references),
                signature=signature,
            )
