"""Spans against a brute-force reading of the offsets, and against the text they came from, for every kind of tokenizer."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tokenizers import CHATML, KINDS, SENTENCES, build_tokenizer

from alignx_fast.data.rows import Dropped, Instruction, Pair, Reason
from alignx_fast.data.spans import bos_ids, encode_prompts, encode_rows, encode_texts
from alignx_fast.data.templates import Template
from alignx_fast.errors import UserError

PAIRS = [
    Pair(a, b, SENTENCES[a][i], SENTENCES[b][(i)])
    for i in range(4)
    for a, b in [("en", "hi"), ("hi", "zh"), ("zh", "ru"), ("ru", "sw"), ("de", "en")]
]
HARD = [
    Pair("en", "zh", "  leading and trailing blanks \n", "\t前后空格  "),
    Pair("en", "de", "Thumbs up 👍🏽👨‍👩‍👧!", "Daumen hoch 👍🏽👨‍👩‍👧"),
    Pair("zh", "hi", "茶", "है"),
    Pair("en", "hi", "café naïve", "की क्षि र्त्स्न्य"),
    Pair("en", "de", "Two\nlines.\n\nThree.", "Zwei\nZeilen.\n\nDrei."),
    Pair("en", "de", "### Response:\nfake", "</s> stays text <s>"),
]


def templates(kind):
    alpaca = build_tokenizer(kind), Template.alpaca()
    chat_tokenizer = build_tokenizer(kind, chat_template=CHATML)
    return {"alpaca": alpaca, "chat": (chat_tokenizer, Template.chat(chat_tokenizer))}


def encode(tokenizer, template, pair, max_length=512, wording=0):
    return encode_rows(tokenizer, template, [template.render_pair(pair, wording)], max_length)[0]


def bare(text):
    """Without blanks and marks that a decoder may move."""
    return "".join(text.split())


@pytest.mark.parametrize("layout", ["alpaca", "chat"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", PAIRS + HARD, ids=lambda pair: pair.src[:12])
def test_spans_are_exactly_the_tokens_over_the_sentence(kind, layout, pair):
    tokenizer, template = templates(kind)[layout]
    rendered = template.render_pair(pair, 1)
    example = encode_rows(tokenizer, template, [rendered], 4096)[0]
    if isinstance(example, Dropped) and example.reason == Reason.SPECIAL:
        assert pair == HARD[-1], "only what spells a control token"
        assert (kind, layout) != ("byte_bpe", "alpaca"), "where none is read from the text, it is text"
        return
    if isinstance(example, Dropped):
        assert kind == "wordpiece", "only a vocabulary without byte fallback may not know a text"
        assert example.reason == Reason.UNKNOWN
        return
    specials = layout == "chat"
    core = tokenizer.backend_tokenizer
    core.encode_special_tokens = not specials
    reference = core.encode(rendered.text, add_special_tokens=False)
    core.encode_special_tokens = False
    shift = len(bos_ids(tokenizer))
    assert example["input_ids"][shift : shift + len(reference.ids)] == reference.ids
    for name, (start, stop) in [("source", rendered.source), ("target", rendered.target)]:
        covered = [i + shift for i, (a, b) in enumerate(reference.offsets) if a < stop and b > start]
        assert example[name] == [covered[0], covered[-1] + 1]
    first = min(i + shift for i, (a, b) in enumerate(reference.offsets) if b > rendered.prompt_end)
    assert example["prompt_length"] == first


@pytest.mark.parametrize("layout", ["alpaca", "chat"])
@pytest.mark.parametrize("kind", ["byte_bpe", "metaspace"])
@pytest.mark.parametrize("pair", PAIRS + HARD, ids=lambda pair: pair.src[:12])
def test_spans_decode_back_to_the_sentences(kind, layout, pair):
    tokenizer, template = templates(kind)[layout]
    example = encode(tokenizer, template, pair)
    if pair == HARD[-1] and (kind, layout) != ("byte_bpe", "alpaca"):
        assert example.reason == Reason.SPECIAL
        return
    for name, text in [("source", pair.src), ("target", pair.tgt)]:
        start, stop = example[name]
        decoded = tokenizer.backend_tokenizer.decode(example["input_ids"][start:stop], skip_special_tokens=False)
        assert bare(unicodedata.normalize("NFC", decoded)) == bare(unicodedata.normalize("NFC", text))


def test_a_token_over_the_last_character_and_the_line_break_is_part_of_the_sentence():
    tokenizer, template = templates("byte_bpe")["alpaca"]
    example = encode(tokenizer, template, PAIRS[0])
    last = tokenizer.decode([example["input_ids"][example["source"][1] - 1]])
    assert last == ".\n\n", "the case this test is for"


def test_wordpiece_spans_decode_back():
    tokenizer, template = templates("wordpiece")["alpaca"]
    for pair in PAIRS:
        example = encode(tokenizer, template, pair)
        for name, text in [("source", pair.src), ("target", pair.tgt)]:
            start, stop = example[name]
            decoded = tokenizer.decode(example["input_ids"][start:stop])
            assert bare(decoded) == bare(tokenizer.backend_tokenizer.normalizer.normalize_str(text))


@settings(max_examples=150, deadline=None)
@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40), st.integers(16, 120), st.integers(0, 5))
@pytest.mark.parametrize("kind", KINDS)
def test_any_text_gives_ordered_spans_or_a_reason(kind, src, tgt, max_length, wording):
    tokenizer, template = build_tokenizer_once(kind)
    result = encode(tokenizer, template, Pair("en", "de", src, tgt), max_length, wording)
    if isinstance(result, Dropped):
        assert result.reason in (Reason.TRUNCATED, Reason.UNKNOWN)
        return
    (s0, s1), (t0, t1) = result["source"], result["target"]
    n = len(result["input_ids"])
    assert 0 < s0 < s1 <= t0 < t1 <= n <= max_length
    assert s1 <= result["prompt_length"] <= t0
    assert result["input_ids"].count(bos_ids(tokenizer)[0]) == 1
    assert result["input_ids"].count(tokenizer.eos_token_id) == (t1 < n)


CACHE = {}


def build_tokenizer_once(kind):
    if kind not in CACHE:
        CACHE[kind] = build_tokenizer(kind), Template.alpaca()
    return CACHE[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_one_bos_first_and_one_eos_last(kind):
    tokenizer, template = templates(kind)["alpaca"]
    (bos,) = bos_ids(tokenizer)
    for pair in PAIRS:
        ids = encode(tokenizer, template, pair)["input_ids"]
        assert (ids[0], ids.count(bos)) == (bos, 1)
        assert (ids[-1], ids.count(tokenizer.eos_token_id)) == (tokenizer.eos_token_id, 1)


def test_no_bos_where_the_tokenizer_puts_none():
    tokenizer = build_tokenizer("byte_bpe", bos=False)
    assert bos_ids(tokenizer) == []
    assert tokenizer.bos_token_id not in encode(tokenizer, Template.alpaca(), PAIRS[0])["input_ids"]


@pytest.mark.parametrize("writes_bos", [True, False])
def test_a_chat_template_never_doubles_the_bos(writes_bos):
    tokenizer = build_tokenizer("byte_bpe", chat_template=("<s>" if writes_bos else "") + CHATML)
    template = Template.chat(tokenizer)
    ids = encode(tokenizer, template, PAIRS[0])["input_ids"]
    assert (ids[0], ids.count(tokenizer.bos_token_id)) == (tokenizer.bos_token_id, 1)
    prompt = template.prompt_for_pair("en", "hi", PAIRS[0].src)
    assert encode_prompts(tokenizer, template, [prompt])[0].count(tokenizer.bos_token_id) == 1


def test_a_chat_row_ends_with_its_end_of_turn():
    tokenizer, template = templates("byte_bpe")["chat"]
    ids = encode(tokenizer, template, PAIRS[0])["input_ids"]
    end_of_turn = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert ids[-1] == end_of_turn
    assert ids.count(end_of_turn) == 2, "one for the user, one for the assistant"
    assert tokenizer.eos_token_id not in ids


def test_a_chat_layout_without_end_marker_gets_the_eos():
    tokenizer = build_tokenizer(
        "byte_bpe", chat_template="{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    )
    ids = encode(tokenizer, Template.chat(tokenizer), PAIRS[0])["input_ids"]
    assert (ids[-1], ids.count(tokenizer.eos_token_id)) == (tokenizer.eos_token_id, 1)


def test_rows_that_are_cut_lose_the_end_token_then_the_target_then_themselves():
    tokenizer, template = templates("byte_bpe")["alpaca"]
    whole = encode(tokenizer, template, PAIRS[0])
    n, (start, stop) = len(whole["input_ids"]), whole["target"]
    cut = encode(tokenizer, template, PAIRS[0], n - 1)
    assert cut["input_ids"] == whole["input_ids"][:-1]
    assert cut["target"] == [start, stop]
    cut = encode(tokenizer, template, PAIRS[0], start + 1)
    assert cut["target"] == [start, start + 1]
    assert encode(tokenizer, template, PAIRS[0], start).reason == Reason.TRUNCATED
    assert encode(tokenizer, template, PAIRS[0], whole["source"][0]).reason == Reason.TRUNCATED


def test_a_row_without_target_is_dropped_and_never_trained_on():
    tokenizer, template = templates("byte_bpe")["alpaca"]
    assert isinstance(encode(tokenizer, template, Pair("en", "de", "Tea.", "  ")), Dropped)
    assert isinstance(encode(tokenizer, template, Pair("en", "de", "\n", "Tee.")), Dropped)
    row = template.render_instruction(Instruction("Say something.", "", ""))
    assert isinstance(encode_rows(tokenizer, template, [row], 512)[0], Dropped)


def test_instructions_have_a_prompt_boundary_but_no_spans():
    tokenizer, template = templates("metaspace")["alpaca"]
    row = template.render_instruction(Instruction("What is this?", "चाय", "Tea in Hindi."))
    example = encode_rows(tokenizer, template, [row], 512)[0]
    assert (example["source"], example["target"]) == ([0, 0], [0, 0])
    assert tokenizer.decode(example["input_ids"][example["prompt_length"] : -1]).strip() == "Tea in Hindi."


def test_a_text_unknown_to_the_vocabulary_is_dropped():
    tokenizer, template = templates("wordpiece")["alpaca"]
    assert encode(tokenizer, template, Pair("en", "ka", "The train leaves.", "ჩაი ბაღში")).reason == Reason.UNKNOWN


@pytest.mark.parametrize("kind", KINDS)
def test_raw_sentences(kind):
    tokenizer = build_tokenizer(kind)
    (opening,) = bos_ids(tokenizer)
    (example,) = encode_texts(tokenizer, ["We drink tea in the garden."], opening, 64)
    assert example["input_ids"][0] == opening
    assert example["source"] == [1, len(example["input_ids"])]
    assert tokenizer.eos_token_id not in example["input_ids"]
    assert bare(tokenizer.decode(example["input_ids"][1:])) == "Wedrinkteainthegarden."
    (cut,) = encode_texts(tokenizer, ["We drink tea in the garden."], opening, 3)
    assert len(cut["input_ids"]) == 3


@pytest.mark.parametrize("layout", ["alpaca", "chat"])
@pytest.mark.parametrize("kind", KINDS)
def test_generation_prompts_are_the_beginning_of_training_rows(kind, layout):
    tokenizer, template = templates(kind)[layout]
    for pair in PAIRS:
        example = encode(tokenizer, template, pair)
        prompt = template.prompt_for_pair(pair.src_lang, pair.tgt_lang, pair.src)
        assert encode_prompts(tokenizer, template, [prompt])[0] == example["input_ids"][: example["prompt_length"]]


def test_a_tokenizer_set_to_pad_and_cut_is_not_obeyed():
    tokenizer, template = build_tokenizer("byte_bpe"), Template.alpaca()
    plain = encode(tokenizer, template, PAIRS[0])
    tokenizer.backend_tokenizer.enable_truncation(4)
    tokenizer.backend_tokenizer.enable_padding(length=900)
    assert encode(tokenizer, template, PAIRS[0]) == plain


def test_a_tokenizer_without_end_token_is_refused():
    tokenizer = build_tokenizer("byte_bpe")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match="eos_token"):
        encode(tokenizer, Template.alpaca(), PAIRS[0])
