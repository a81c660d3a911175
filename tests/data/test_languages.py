"""Language codes: many spellings, one form, and a suggestion for what is none."""

import pytest

from alignx_fast.data.languages import NAMES, check_language, language_name
from alignx_fast.errors import UserError


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        *[("de", "de"), ("DE", "de"), ("deu", "de"), ("deu_Latn", "de"), ("de-DE", "de"), (" de ", "de")],
        *[("zho_simpl", "zh"), ("zho_Hans", "zh"), ("cmn", "zh"), ("zh-CN", "zh"), ("zho_Hant", "zh-Hant"), ("zh_TW", "zh-Hant")],
        *[("swh", "sw"), ("swh_Latn", "sw"), ("arb_Arab", "ar"), ("npi_Deva", "ne"), ("lvs_Latn", "lv"), ("fil", "tl")],
        *[("srp_Cyrl", "sr"), ("sr-Latn", "sr-Latn"), ("nob_Latn", "nb"), ("pt-br", "pt-BR"), ("prs_Arab", "fa-AF")],
        *[("min_Arab", "min-Arab"), ("kas_Deva", "ks-Deva"), ("nah", "nah")],
    ],
)
def test_spellings(given, canonical):
    assert check_language(given) == canonical


def test_every_code_of_the_table_is_its_own_spelling():
    assert {code: check_language(code) for code in NAMES} == {code: code for code in NAMES}


def test_names():
    assert [language_name(code) for code in ("de", "swh", "zho_Hant", "nah")] == [
        "German",
        "Swahili",
        "Traditional Chinese",
        "nah",
    ]


@pytest.mark.parametrize(
    ("wrong", "suggestion"), [("german", "`de` (German)"), ("jp", "`ja` (Japanese)"), ("xx", "`xh`"), ("", "`en`"), ("12", "`")]
)
def test_an_unknown_code_names_the_nearest(wrong, suggestion):
    with pytest.raises(UserError) as caught:
        check_language(wrong)
    assert suggestion in str(caught.value)
