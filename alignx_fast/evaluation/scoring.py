"""Scores of translated texts: BLEU, spBLEU, chrF++, TER and the share in the wrong language."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, Protocol

from sacrebleu import BLEU, CHRF, TER
from sacrebleu.metrics.base import Metric
from sacrebleu.significance import PairedTest, Result

from alignx_fast.evaluation.intervals import RESAMPLES
from alignx_fast.evaluation.results import Interval, TextScores
from alignx_fast.evaluation.spbleu import PieceTokenizer, SpBleu

TOKENIZERS = ("13a", "zh", "char")
BLANKLESS = {"ja", "km", "lo", "my", "th"}  # written without blanks between words


class LanguageIdentifier(Protocol):
    """What is used of py3langid's identifier."""

    labels: Sequence[str]

    def set_languages(self, langs: set[str] | None) -> None: ...

    def classify(self, text: str) -> tuple[str, float]: ...


def bleu_tokenizer(language: str) -> str:
    """sacrebleu's tokenizer for BLEU into a language, one of `TOKENIZERS`."""
    base = language.split("-")[0]
    if base in {"zh", "yue"}:
        return "zh"
    return "char" if base in BLANKLESS else "13a"


def metrics(tokenizer: str | None, spbleu: PieceTokenizer | None) -> dict[str, Metric]:
    """sacrebleu's metrics by the field of `TextScores`, for the languages that one tokenizer of BLEU is for.

    Without that tokenizer there are only the metrics that are the same for every language.
    """
    chosen: dict[str, Metric] = {} if tokenizer is None else {"bleu": BLEU(tokenize=tokenizer)}
    if spbleu is not None:
        chosen["spbleu"] = SpBleu(spbleu)
    chosen["chrf"] = CHRF(word_order=2)
    if tokenizer == "13a":
        chosen["ter"] = TER()
    if tokenizer == "zh":
        chosen["ter"] = TER(normalized=True, asian_support=True)  # every Chinese character is a word
    return chosen


TITLES = {"bleu": "BLEU", "spbleu": "spBLEU", "chrf": "chrF++", "ter": "TER"}
"""The metrics' names in print."""


@dataclass(frozen=True, slots=True)
class CorpusScores:
    """Scores of a corpus with 95 % intervals, both by the field of `TextScores`."""

    scores: TextScores
    intervals: dict[str, Interval]
    signature: str


class CorpusScorer:
    """BLEU with one of sacrebleu's tokenizers, chrF++, TER, and spBLEU where its tokenizer is given."""

    def __init__(self, tokenizer: str, spbleu: PieceTokenizer | None = None) -> None:
        self.metrics, self.spbleu = metrics(tokenizer, spbleu), spbleu

    def scores(self, hypotheses: Sequence[str], references: Sequence[str]) -> TextScores:
        """Corpus scores without intervals."""
        hypotheses, references = one_line(hypotheses), one_line(references)
        values = {name: metric.corpus_score(hypotheses, [references]).score for name, metric in self.metrics.items()}
        return TextScores.model_validate(values)

    def with_intervals(self, hypotheses: Sequence[str], references: Sequence[str]) -> CorpusScores:
        """Corpus scores with sacrebleu's bootstrap intervals: the same sentences are drawn for every corpus of a size.

        One sentence has no interval: it says nothing about the spread.
        """
        hypotheses, references = one_line(hypotheses), one_line(references)
        values: dict[str, float] = {}
        intervals: dict[str, Interval] = {}
        signatures = []
        for name, metric in self.metrics.items():
            # A test of one system: sacrebleu's own way to a bootstrap interval in numbers rather than in text.
            (result,), signature = resample(metric, [hypotheses], references, "bs", RESAMPLES)
            values[name] = result.score
            if len(references) > 1 and result.mean is not None and result.ci is not None:
                intervals[name] = Interval(low=max(0.0, result.mean - result.ci), high=result.mean + result.ci)
            signatures.append(f"{TITLES[name]} {signature}")
        if self.spbleu is not None:
            unverified = "" if self.spbleu.verified else " (recorded, not verified)"
            signatures.append(f"SentencePiece model of spBLEU sha256:{self.spbleu.sha256}{unverified}")
        return CorpusScores(TextScores.model_validate(values), intervals, "; ".join(signatures))


def resample(
    metric: Metric, systems: Sequence[Sequence[str]], references: Sequence[str], test: Literal["bs", "ar"], trials: int
) -> tuple[list[Result], str]:
    """sacrebleu's result for each system, all but the first tested against the first, and its signature.

    The seed is sacrebleu's: the environment variable SACREBLEU_SEED, else 12345. Takes about 100 kB of memory a sentence.
    """
    named = [(str(i), system) for i, system in enumerate(systems)]
    signatures, columns = PairedTest(named, {"": metric}, [references], test_type=test, n_samples=trials)()
    ((name, signature),) = signatures.items()
    return [result for result in columns[name] if isinstance(result, Result)], str(signature)


def one_line(texts: Sequence[str]) -> list[str]:
    """Each text in one line, as it would stand in a file that sacrebleu's command line reads."""
    return [" ".join(text.splitlines()) for text in texts]


def other_sentences(references: Sequence[str]) -> list[str]:
    """The same sentences in another order, none in its own place where there are two or more."""
    half = len(references) // 2  # far away: neighbours in a corpus are often variants of each other
    return [*references[half:], *references[:half]]


def off_target(hypotheses: Sequence[str], target: str, languages: Sequence[str]) -> float | None:
    """Share of hypotheses that py3langid takes for another of `languages` than `target`; an empty one is off target.

    None where py3langid is not installed, or does not know the target or any other of the languages.
    """
    identifier = language_identifier()
    if identifier is None or not hypotheses:
        return None
    identifier.set_languages(None)
    known = {language.split("-")[0] for language in languages} & set(identifier.labels)
    target = target.split("-")[0]
    if target not in known or len(known) < 2:
        return None
    identifier.set_languages(known)
    wrong = [not text.strip() or identifier.classify(text)[0] != target for text in hypotheses]
    return sum(wrong) / len(wrong)


@cache
def language_identifier() -> LanguageIdentifier | None:
    """py3langid's identifier with its bundled model, or None where it is not installed."""
    try:
        from py3langid import langid
    except ImportError:
        return None
    identifier: LanguageIdentifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE)
    return identifier
