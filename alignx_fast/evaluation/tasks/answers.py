"""Scores of generated answers: the number of MGSM, the words of XQuAD."""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence

NUMBER = re.compile(r"-?\d+(?:[.,\u00a0\u202f]\d{3}(?!\d))*(?:[.,]\d+)?")
"""Digits of any script, with or without separators of thousands, and decimals."""
ARTICLES = {"a", "an", "the"}
"""Words that the score of SQuAD passes over."""
BLANKLESS = {"th", "zh"}
"""Languages of XQuAD that are written without blanks between words: their characters are compared."""


def mgsm_score(row: Mapping[str, str], results: Sequence[str]) -> dict[str, float]:
    """Whether the last number before a further question is the answer."""
    said = results[0].split(row["question_word"].strip())[0]
    return {"exact_match": float(last_number(said) == last_number(row["answer"]))}


def last_number(text: str) -> float | None:
    """The last number of a text; a point or comma before exactly three digits separates thousands."""
    found = NUMBER.findall(text)
    if not found:
        return None
    whole = re.sub(r"[.,\u00a0\u202f](?=\d{3}(?!\d))", "", found[-1])
    return float(whole.replace(",", "."))


def xquad_score(row: Mapping[str, object], results: Sequence[str]) -> dict[str, float]:
    """Exact match and F1 of the words, against the answer that fits best."""
    lang, answers = str(row["lang"]), row["answers"]
    assert isinstance(answers, list)
    said = words(results[0], lang)
    return {
        "f1": max(word_f1(words(answer, lang), said) for answer in answers),
        "exact_match": max(float(words(answer, lang) == said) for answer in answers),
    }


def words(text: str, lang: str) -> list[str]:
    """Lower-case words, or characters where the language has no blanks, without punctuation and English articles."""
    plain = "".join(c for c in text.lower() if not unicodedata.category(c).startswith("P"))
    if lang in BLANKLESS:
        return list("".join(plain.split()))
    return [word for word in plain.split() if lang != "en" or word not in ARTICLES]


def word_f1(gold: Sequence[str], said: Sequence[str]) -> float:
    """Harmonic mean of precision and recall of two bags of words; 1 where both are empty."""
    if not gold or not said:
        return float(list(gold) == list(said))
    same = sum((Counter(gold) & Counter(said)).values())
    return 2 * same / (len(gold) + len(said))
