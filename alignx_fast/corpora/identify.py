"""Language identification by py3langid, where a sentence is long enough to tell."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from alignx_fast.errors import UserError

if TYPE_CHECKING:
    from py3langid import langid

SHORTEST = 20
"""Characters below which the identification is not asked."""


def other_language(batch: pa.Table, probability: float) -> pa.Array:
    """Whether a side is taken for another language than its own with at least this probability; bool [rows].

    Languages that py3langid does not know are passed.
    """
    identifier, known = _identifier()
    wrong = np.zeros(len(batch), dtype=bool)
    for side in ("src", "tgt"):
        for at, (text, lang) in enumerate(zip(batch[side].to_pylist(), batch[f"{side}_lang"].to_pylist(), strict=True)):
            base = lang.partition("-")[0]
            if base in known and len(text) >= SHORTEST and not wrong[at]:
                found, certainty = identifier.classify(text)
                wrong[at] = found != base and certainty >= probability
    return pa.array(wrong)


@cache
def _identifier() -> "tuple[langid.LanguageIdentifier, frozenset[str]]":
    try:
        from py3langid import langid
    except ModuleNotFoundError:
        raise UserError("corpus.filters.language_id needs py3langid: `pip install py3langid`, or leave it unset.") from None
    identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
    return identifier, frozenset(map(str, identifier.labels))
