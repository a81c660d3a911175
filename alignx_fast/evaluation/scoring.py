"""Scores of translated texts: BLEU, chrF++ and the share in the wrong language."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from sacrebleu import BLEU, CHRF
from sacrebleu.utils import SACREBLEU_DIR

from alignx_fast.evaluation.results import TextScores

FLORES200 = Path(SACREBLEU_DIR) / "models" / "flores200sacrebleuspm"
BLANKLESS = {"ja", "km", "lo", "my", "th"}  # written without blanks between words


class LanguageIdentifier(Protocol):
    """What is used of py3langid's identifier."""

    labels: Sequence[str]

    def set_languages(self, langs: set[str] | None) -> None: ...

    def classify(self, text: str) -> tuple[str, float]: ...


def bleu_tokenizer(language: str) -> tuple[str, str | None]:
    """sacrebleu's tokenizer for a language, and a note where the choice needs one. Nothing is ever downloaded."""
    base = language.split("-")[0]
    if base in {"zh", "yue"}:
        return "zh", None
    if base not in BLANKLESS:
        return "13a", None
    if not FLORES200.exists():
        return "char", f"BLEU into {language} counts characters (no FLORES-200 tokenizer at {FLORES200}): compare chrF++ instead."
    digest = hashlib.sha256(FLORES200.read_bytes()).hexdigest()
    return "flores200", f"BLEU into {language} uses the tokenizer at {FLORES200}, sha256 {digest}."


class CorpusScorer:
    """BLEU with one of sacrebleu's tokenizers, and chrF++."""

    def __init__(self, tokenizer: str) -> None:
        self.bleu, self.chrf = BLEU(tokenize=tokenizer), CHRF(word_order=2)

    def __call__(self, hypotheses: Sequence[str], references: Sequence[str]) -> TextScores:
        """Corpus scores, 0 to 100, more is better."""
        return TextScores(
            bleu=self.bleu.corpus_score(hypotheses, [references]).score,
            chrf=self.chrf.corpus_score(hypotheses, [references]).score,
        )

    @property
    def signature(self) -> str:
        """sacrebleu's signatures of both scores, known once something was scored."""
        return f"BLEU {self.bleu.get_signature()}; chrF++ {self.chrf.get_signature()}"


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
