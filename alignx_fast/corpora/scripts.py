"""The scripts that languages are written in, as classes of regular expressions, and how much a character of each says."""

import functools

import langcodes

SCRIPTS = {
    "Arab": ("Arabic",), "Armn": ("Armenian",), "Beng": ("Bengali",), "Cyrl": ("Cyrillic",), "Deva": ("Devanagari",),
    "Ethi": ("Ethiopic",), "Geor": ("Georgian",), "Grek": ("Greek",), "Gujr": ("Gujarati",), "Guru": ("Gurmukhi",),
    "Hans": ("Han",), "Hant": ("Han",), "Hebr": ("Hebrew",), "Jpan": ("Han", "Hiragana", "Katakana"), "Khmr": ("Khmer",),
    "Knda": ("Kannada",), "Kore": ("Hangul", "Han"), "Laoo": ("Lao",), "Latn": ("Latin",), "Mlym": ("Malayalam",),
    "Mtei": ("Meetei_Mayek",), "Mymr": ("Myanmar",), "Nkoo": ("Nko",), "Olck": ("Ol_Chiki",), "Orya": ("Oriya",),
    "Sinh": ("Sinhala",), "Taml": ("Tamil",), "Telu": ("Telugu",), "Tfng": ("Tifinagh",), "Thaa": ("Thaana",), "Thai": ("Thai",),
    "Tibt": ("Tibetan",),
}  # fmt: skip
"""ISO 15924 code -> Unicode scripts."""
OTHERS = {
    "az": "Cyrl", "bs": "Cyrl", "ha": "Arab", "kk": "Latn", "ks": "Deva", "ku": "Arab", "mn": "Mong", "pa": "Arab", "sd": "Deva",
    "sr": "Latn", "tg": "Arab", "tk": "Cyrl", "tt": "Latn", "ug": "Latn", "uz": "Cyrl",
}  # fmt: skip
"""Languages that are commonly written in a second script too."""
WEIGHTS = {"Hans": 3.0, "Hant": 3.0, "Jpan": 2.4, "Kore": 2.0}
"""Latin characters that say as much as one of this script, from the mean lengths of translations of the same sentences."""
WITHOUT_BLANKS = frozenset({"Hans", "Hant", "Jpan", "Khmr", "Laoo", "Mymr", "Thai", "Tibt"})


@functools.cache
def script_of(language: str) -> str:
    """The ISO 15924 code of the script that a language is mostly written in."""
    return langcodes.get(language).maximize().script or "Latn"


def letters_of(language: str) -> tuple[str, ...]:
    """Unicode scripts that a language's text may be in; empty where none is known."""
    own = SCRIPTS.get(script_of(language), ())
    return own if "-" in language or not own else own + SCRIPTS.get(OTHERS.get(language, ""), ())


def weight_of(language: str) -> float:
    """Latin characters that say as much as one character of a language."""
    return WEIGHTS.get(script_of(language), 1.0)
