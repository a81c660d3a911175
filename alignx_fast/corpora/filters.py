r"""The filters as SQL: a condition each, true for a pair that is dropped, over a few macros that measure a sentence.

The macros are written out for the languages at hand, so that every regular expression in them is a constant.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alignx_fast.corpora.scripts import WITHOUT_BLANKS, letters_of, script_of, weight_of
from alignx_fast.corpora.settings import CorpusFilters

Value = TypeVar("Value")

SMOOTHING = 10
"""Characters added to both sides before their lengths are compared, so that short sentences may differ more."""
WORDS, CHARACTERS = 10, 20
"""Sentences with fewer are not searched for repetitions."""
MARKUP = r"</?[A-Za-z][^<>]{0,200}>|\{[^{}\s]{0,40}\}|%(?:[0-9]+\$)?[sd@]\b"
DIGITS = "٠١٢٣٤٥٦٧٨٩۰۱۲۳۴۵۶۷۸۹०१२३४५६७८९০১২৩৪৫৬৭৮৯๐๑๒๓๔๕๖๗๘๙၀၁၂၃၄၅၆၇၈၉០១២៣៤៥៦៧៨៩０１２３４５６７８９"
SIGNIFICANT = "[1-9](?:[0-9]*[1-9])?"
MYRIADS = "万萬만億亿억千천"
"""East Asian words for 10,000, 100,000,000 and 1000, which stand between the digits of a number."""
HOURS = "CASE WHEN 'sw' IN (src_lang, tgt_lang) THEN 6 ELSE 12 END"
"""How far apart two ways to count the same hour are: Swahili counts from dawn."""
UNITS = (1.609, 2.54, 25.4, 3.281, 30.48, 2.205, 2.47, 3.785)
"""Kilometres a mile, centimetres and millimetres an inch, feet a metre, centimetres a foot, pounds a kilogram, acres a hectare, litres a gallon."""
CONVERSIONS = (
    """-- The same hour, a or b counted from noon or midnight; the same year, in two digits, by the Thai calendar, or as its century.
CREATE OR REPLACE TEMP MACRO same_time(a, b, hours) AS
  (a <= 24 AND floor(a) - floor(b) IN (hours, 12)) OR a - b = 543
  OR (a BETWEEN 1000 AND 2099 AND (a % 100 = b OR (a % 100 = 0 AND a / 100 + 1 = b)))""",
    f"""-- The same quantity, in two units: within 3 % of a factor, or degrees of Fahrenheit and Celsius.
CREATE OR REPLACE TEMP MACRO same_quantity(a, b) AS
  (a >= 10 AND b > 0 AND len(list_filter({list(UNITS)}, lambda unit: abs(a / b / unit - 1) < 0.03)) > 0) OR abs(a - 1.8 * b - 32) < 2""",
    """-- Whether at least half of the numbers, of the side that has fewer, could be the other's.
CREATE OR REPLACE TEMP MACRO converted(s, t, hours) AS 2 * len(list_filter(amounts(s), lambda a: len(list_filter(amounts(t), lambda b:
    same_time(a, b, hours) OR same_time(b, a, hours) OR same_quantity(a, b) OR same_quantity(b, a))) > 0))
  >= least(len(amounts(s)), len(amounts(t)))""",
)
ASCII_DIGITS = "0123456789" * (len(DIGITS) // 10)


@dataclass(frozen=True)
class Filter:
    """A reason to drop a pair, and the SQL condition."""

    name: str
    """The setting in `corpus.filters`."""
    reason: str
    condition: str


def filters(settings: CorpusFilters) -> list[Filter]:
    """The filters that are switched on, in their order."""
    ratio, share, distinct = settings.max_length_ratio, settings.min_script_share, settings.min_distinct_words
    found = [
        Filter("test_sets", "in test set", "test_set IS NOT NULL"),
        Filter("identical", "same text on both sides", "key_src = key_tgt"),
        Filter("max_characters", "too long", f"greatest(length(src), length(tgt)) > {settings.max_characters}"),
        Filter(
            "max_length_ratio",
            "lengths too different",
            f"greatest(weighed(src, src_lang), weighed(tgt, tgt_lang)) + {SMOOTHING} > "
            f"{ratio} * (least(weighed(src, src_lang), weighed(tgt, tgt_lang)) + {SMOOTHING})",
        ),
        Filter(
            "min_script_share", "script of another language", _either(f"foreign_share({{0}}, {{0}}_lang) > {1 - (share or 0):g}")
        ),
        Filter("min_distinct_words", "repetitions", _either(f"distinct_share({{0}}, {{0}}_lang) < {distinct}")),
        Filter("markup", "markup out of step", "markup(src) <> markup(tgt)"),
        Filter(
            "numbers",
            "numbers out of step",
            "len(numbers(src)) > 0 AND len(numbers(tgt)) > 0 AND NOT list_has_any(numbers(src), numbers(tgt))\n"
            f"      AND NOT converted(src, tgt, {HOURS})",
        ),
        Filter("language_id", "another language", "is_other_language"),
    ]
    return [one for one in found if one.name == "test_sets" or getattr(settings, one.name)]


def macros(languages: Sequence[str]) -> list[str]:
    """The statements that make the macros which the conditions use."""
    foreign = _by_language(languages, letters_of, _foreign_letters)
    weight = _by_language(languages, weight_of, str)
    unspaced = _by_language(languages, lambda lang: script_of(lang) in WITHOUT_BLANKS, lambda yes: str(yes).upper())
    digits = f"regexp_replace(translate(t, '{DIGITS}', '{ASCII_DIGITS}'), '([0-9])[.,\\x{{A0}}\\x{{202F}} ]([0-9]{{3}})\\b', '\\1\\2', 'g')"
    return [
        f"""-- Length in Latin characters that say as much.
CREATE OR REPLACE TEMP MACRO weighed(t, lang) AS length(t) * {weight}""",
        f"""-- Letters of other scripts than the language's: [^\\P{{L}}\\p{{Latin}}] is whatever is neither Latin nor no letter.
CREATE OR REPLACE TEMP MACRO foreign_letters(t, lang) AS length(t) - length({foreign})""",
        r"""CREATE OR REPLACE TEMP MACRO foreign_share(t, lang) AS
  CASE WHEN foreign_letters(t, lang) = 0 THEN 0 ELSE foreign_letters(t, lang) / length(regexp_replace(t, '\P{L}+', '', 'g')) END""",
        f"""-- Share of different words, or twice that of different characters at the beginning where words are not set apart; 1 for short sentences.
CREATE OR REPLACE TEMP MACRO distinct_share(t, lang) AS CASE
  WHEN {unspaced} THEN
    CASE WHEN length(t) < {CHARACTERS} THEN 1 ELSE 2 * list_unique(string_split(left(t, {2 * CHARACTERS}), '')) / least(length(t), {2 * CHARACTERS}) END
  WHEN len(string_split(t, ' ')) < {WORDS} THEN 1
  ELSE list_unique(string_split(t, ' ')) / len(string_split(t, ' ')) END""",
        f"""-- Tags and placeholders.
CREATE OR REPLACE TEMP MACRO markup(t) AS
  CASE WHEN regexp_matches(t, '[<{{%]') THEN list_sort(regexp_extract_all(t, '{MARKUP}')) ELSE [] END""",
        f"""-- Numbers in ASCII digits, without zeros at their ends: "375 thousand" is 375,000. Once more without separators: 2.4 million is 240 ten thousands.
CREATE OR REPLACE TEMP MACRO numbers(t) AS CASE
  WHEN regexp_matches(t, '\\p{{Nd}}') THEN list_concat(
    regexp_extract_all({digits}, '{SIGNIFICANT}'),
    regexp_extract_all(regexp_replace({digits}, '([0-9])(?:[.,]| ?[{MYRIADS}] ?)([0-9])', '\\1\\2', 'g'), '{SIGNIFICANT}'))
  ELSE [] END""",
        f"""-- Values of the numbers.
CREATE OR REPLACE TEMP MACRO amounts(t) AS
  list_transform(regexp_extract_all({digits}, '[0-9]{{1,9}}(?:[.,][0-9]{{1,3}})?'), lambda n: replace(n, ',', '.')::DOUBLE)""",
        *CONVERSIONS,
    ]


def _either(condition: str) -> str:
    return " OR ".join(condition.format(side) for side in ("src", "tgt"))


def _foreign_letters(scripts: tuple[str, ...]) -> str:
    if not scripts:
        return "t"
    own = "".join(f"\\p{{{script}}}" for script in scripts)
    return f"regexp_replace(t, '[^\\P{{L}}{own}]+', '', 'g')"


def _by_language(languages: Sequence[str], value_of: Callable[[str], Value], expression: Callable[[Value], str]) -> str:
    """An expression chosen by language; the commonest value needs no condition."""
    groups: dict[Value, list[str]] = defaultdict(list)
    for language in sorted(languages):
        groups[value_of(language)].append(language)
    common = max(groups, key=lambda value: len(groups[value]))
    cases = "".join(
        f"\n    WHEN lang IN ({', '.join(map(repr, members))}) THEN {expression(value)}"
        for value, members in groups.items()
        if value != common
    )
    return f"CASE{cases}\n    ELSE {expression(common)} END" if cases else expression(common)
