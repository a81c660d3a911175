"""What is fed to the readers: rows and files as they should be, as people have them, and as nobody should have them."""

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

INPUTS = int(os.environ.get("FUZZ_INPUTS", "0"))
"""Inputs of all fuzzed tests together; 0: a few hundred, the same every time."""

PIECES = [
    *"abcdeABC 012 .,!?'\"{}[]:#&*-|<>/\\%",
    *[
        "word",
        "Wort",
        "नमस्ते",
        "你好",
        "Привет",
        "e\u0301",
        "👍🏽",
        "👨\u200d👩\u200d👧",
        "ﬁ",
        "Ⅳ",
        "İ",
        "\u00a0",
        "\ufeff",
        "\ufffd",
        "\u200b",
    ],
    *["\n", "\r", "\r\n", "\t", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"],
    *[
        "\x00",
        "\x07",
        "\x1b[31m",
        "\x1b]0;title\x07",
        "\x7f",
        "\x9b31m",
        "\ud83d",
        "\udc4d",
        "\u202e",
        "\u2066",
        "\U000e0041",
        "\uffff",
    ],
    *[
        "<s>",
        "</s>",
        "<unk>",
        "<pad>",
        "[SEP]",
        "[CLS]",
        "[UNK]",
        "<|im_start|>",
        "<|im_end|>",
        "<think>",
        "<tool_call>",
        "<0x0A>",
        "<0xE2>",
    ],
    *[
        "＜/s＞",
        "### Instruction:\n",
        "\n\n### Response:\n",
        "{{ x }}",
        "{% raw %}",
        "nan",
        "null",
        "None",
        "NaN",
        "-",
        "0",
        "1e999",
    ],
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=8).map("".join)
"""Any text, broken ones among them."""
languages = (
    st.sampled_from(
        [
            "en",
            "de",
            "sw",
            "deu",
            "deu_Latn",
            "zho_simpl",
            "EN",
            "no",
            "nan",
            "",
            " ",
            "x",
            "gerrman",
            "en-US",
            "\x1b",
            "arb_Latn",
            "arb",
        ]
    )
    | texts
)
values = st.recursive(
    texts | st.none() | st.booleans() | st.integers() | st.floats() | st.just(10**400),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=3,
)
"""What JSON can hold."""


@dataclass(frozen=True)
class RowsOfAKind:
    """Strategies for rows of one kind."""

    good: st.SearchStrategy
    """As they should be; their texts are any."""
    wild: st.SearchStrategy
    """With keys missing, misspelled or of any type."""


def rows(required: dict[str, st.SearchStrategy], optional: dict[str, st.SearchStrategy]) -> RowsOfAKind:
    """Rows with these keys."""
    good = st.fixed_dictionaries(required, optional=optional)
    other = st.dictionaries(st.sampled_from([*required, *optional]) | texts, values, max_size=6)
    return RowsOfAKind(good, other | st.builds(dict.__or__, good, other))


good_texts = st.text("abc é你1.", min_size=1, max_size=12) | texts
codes = st.sampled_from(["en", "de", "sw", "zh"])
ids = st.none() | st.integers(0, 3) | st.sampled_from(["", "a", "NaN", "\ud83d", "\x1b"]) | st.just(float("nan"))
by_language = st.dictionaries(codes, good_texts, min_size=2)
sides = {"src": good_texts, "tgt": good_texts, "src_lang": codes, "tgt_lang": codes}
flat, multiway = rows(sides, {"gid": ids, "id": ids}), rows({"texts": by_language}, {"gid": ids, "id": ids})
any_languages = st.dictionaries(languages, texts | st.none() | st.just(float("nan")), max_size=4)
pair_rows = RowsOfAKind(
    flat.good | multiway.good, flat.wild | multiway.wild | st.fixed_dictionaries({"texts": any_languages}) | flat.good
)
instruction_rows = rows(
    {"instruction": good_texts, "output": good_texts}, {"input": texts | st.none(), "lang": codes | st.none(), "gid": ids}
)
meaning_rows = rows({"texts": st.dictionaries(codes, good_texts, min_size=1)}, {"id": ids, "gid": ids})


def encoded(text: str) -> bytes:
    """As bytes, halves of pairs among them, which are no UTF-8 then."""
    return text.encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: Callable, whole: bytes) -> bytes:
    """The bytes, often as they are, else with some cut off, changed or put in."""
    if not whole or draw(st.integers(0, 2)):
        return whole
    at = draw(st.integers(0, len(whole) - 1))
    change = draw(st.sampled_from(["cut", "put in", "replace"]))
    if change == "cut":
        return whole[:at]
    return whole[:at] + draw(st.binary(min_size=1, max_size=3)) + whole[at + (change == "replace") :]


@st.composite
def jsonl_files(draw: Callable, kind: RowsOfAKind) -> bytes:
    """A file of JSON lines; two of three hold good rows alone, which texts that are no UTF-8 are kept out of by escapes."""
    if draw(st.integers(0, 2)):
        lines = [json.dumps(row) for row in draw(st.lists(kind.good, min_size=1, max_size=6))]
        return encoded(draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines))
    lines = [json.dumps(row, ensure_ascii=draw(st.booleans())) for row in draw(st.lists(kind.good | kind.wild, max_size=4))]
    return draw(damaged(encoded(draw(st.sampled_from(["\n", "\r\n", "\r"])).join(lines))))


@st.composite
def compressed(draw: Callable, content: st.SearchStrategy) -> tuple[str, bytes]:
    """(what the name ends in, the content), plain or gzipped, gzip data damaged at times."""
    data = draw(content)
    if draw(st.integers(0, 7)):
        return "", data
    return ".gz", draw(damaged(gzip.compress(data, 1)))


def fuzzed(share: float) -> settings:
    """The settings of a test that takes a share of all inputs."""
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much]
    return settings(
        max_examples=max(1, round((INPUTS or 500) * share)),
        deadline=None,
        database=None,
        derandomize=not INPUTS,
        suppress_health_check=slow,
        print_blob=True,
    )
