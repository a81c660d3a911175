"""Scores of translated texts: BLEU, chrF++ and the share in the wrong language."""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from sacrebleu import BLEU, CHRF
from sacrebleu.utils import SACREBLEU_DIR

BLANKLESS = {"ja", "km", "lo", "my", "th"}  # written without blanks between words
FLORES200 = Path(SACREBLEU_DIR) / "models" / "flores200sacrebleuspm"


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


def score(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> dict:
    """Corpus BLEU and chrF++ (0 to 100, more is better): {"bleu", "chrf++", "chance", "n", "tokenizer", "signature"}.

    `chance` holds both scores of answering with another sentence's reference: fluent, in the right language, and wrong.
    """
    bleu, chrf = BLEU(tokenize=tokenizer), CHRF(word_order=2)
    half = len(references) // 2  # far away: neighbours in a corpus are often variants of each other
    shifted = [*references[half:], *references[:half]]
    return {
        "bleu": bleu.corpus_score(hypotheses, [references]).score,
        "chrf++": chrf.corpus_score(hypotheses, [references]).score,
        "chance": {
            "bleu": bleu.corpus_score(shifted, [references]).score,
            "chrf++": chrf.corpus_score(shifted, [references]).score,
        },
        "n": len(hypotheses),
        "tokenizer": tokenizer,
        "signature": f"BLEU {bleu.get_signature()}; chrF++ {chrf.get_signature()}",
    }


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
def language_identifier() -> Any:
    """py3langid's identifier with its bundled model, or None where it is not installed."""
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        return None
    return LanguageIdentifier.from_model_file(MODEL_FILE)
