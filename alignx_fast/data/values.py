"""Values of a row as texts, ids and language codes, each with its place for messages."""

import difflib
import math

from alignx_fast.data.characters import escaped
from alignx_fast.data.languages import check_language
from alignx_fast.data.lines import Row
from alignx_fast.errors import UserError


def group_of(row: Row) -> str | None:
    """The group that a row says it belongs to."""
    return id_of(row.get("gid"))


def id_of(value: object) -> str | None:
    """An id as text that can be written; None where it is missing."""
    text = "" if is_missing(value) else escaped(str(value).strip())
    return None if text.lower() in ("", "nan", "null", "none") else text


def is_missing(value: object) -> bool:
    """Whether there is no value: tables write null, NaN or nothing."""
    return value is None or (isinstance(value, float) and math.isnan(value)) or (isinstance(value, str) and not value.strip())


def required(row: Row, record: Row, name: str, where: str) -> str:
    """The text under one of our names; a missing value is an empty text.

    Raises:
        UserError: there is no such column, or it holds something else.
    """
    if name not in row:
        raise UserError(no_column(name, record, where))
    return text_of(row[name], name, where)


def text_of(value: object, name: str, where: str) -> str:
    """A value as a text without blanks around it.

    Raises:
        UserError: it is something else.
    """
    if is_missing(value):
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: `{name}` is {value!r:.60}, not a text. Quote it, or map another column with `columns`.")
    return value.strip()


def language_of(code: object, where: str) -> str:
    """The canonical spelling of a code.

    Raises:
        UserError: no such language.
    """
    if not isinstance(code, str):
        raise UserError(f"{where}: a language is {code!r:.60}, not a code such as de. Quote it.")
    try:
        return check_language(code)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def no_column(name: str, record: Row, where: str) -> str:
    """The sentence on a column that is not there, with the one that is likely meant."""
    known = {"src": "source", "tgt": "target", "src_lang": "source_lang", "tgt_lang": "target_lang", "output": "response"}
    candidates = [key for key in record if key not in known]
    near = difflib.get_close_matches(name, candidates, n=1, cutoff=0.5)
    near = near or difflib.get_close_matches(known.get(name, name), candidates, n=1)
    if name.endswith("_lang") and not near:
        return f"{where} does not say its languages. Set {name} of this source, or add a column `{name}`."
    hint = (
        f" If `{near[0]}` holds it, set columns: {{{name}: {near[0]}}}." if near else f" Map it with columns: {{{name}: YOURS}}."
    )
    return f"{where} has no `{name}`, only {', '.join(record)}.{hint}"
