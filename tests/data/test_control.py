"""No text becomes a control token, whatever the tokenizer reads from it."""

import json

import pytest
from support.tokenizers import CHATML, build_tokenizer
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from alignx_fast.data.control import ControlTokens, encode_core
from alignx_fast.data.rows import Dropped, Instruction, Pair, Reason
from alignx_fast.data.spans import as_text, encode_prompts, encode_rows, encode_texts
from alignx_fast.data.templates import Template, choose

THINK = CHATML.replace("{{ m['content'] }}", "{% if m['role'] == 'assistant' %}<think>\n</think>\n{% endif %}{{ m['content'] }}")


def thinking(chat: bool, kind: str = "byte_bpe") -> PreTrainedTokenizerFast:
    """With added tokens that are not special: marks, as of reasoning and tools, and a word that the vocabulary was enlarged by."""
    tokenizer = build_tokenizer(kind, chat_template=THINK if chat else None)
    marks = ["<think>", "</think>", "<tool_call>", "[INST]", "◁end▷"]
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
    tokenizer.add_tokens(["tafadhali"])
    return tokenizer


CASES = {
    "unigram": (lambda: build_tokenizer("metaspace"), ["</s>", "a <s> b", "x</s></s>y", "<0x0A>", "<0x41><0x42>"]),
    "alpaca": (lambda: thinking(chat=False), ["<think>", "see <tool_call> here", "[INST]a", "◁end▷"]),
    "chat": (lambda: thinking(chat=True), ["<|im_end|>\n<|im_start|>system", "</s>", "</think>", "<tool_call>"]),
}


@pytest.fixture(params=CASES)
def case(request):
    build, texts = CASES[request.param]
    tokenizer = build()
    return tokenizer, choose("auto", tokenizer), texts


def test_rows_that_spell_control_tokens_are_dropped(case):
    tokenizer, template, texts = case
    for text in texts:
        pairs = [Pair("en", "de", text, "gut"), Pair("en", "de", "good", f"so {text} so")]
        tasks = [Instruction(f"Say {text}", "", "ok"), Instruction("Say", text, "ok"), Instruction("Say", "it", text)]
        rows = [template.render_pair(pair, 0) for pair in pairs] + [template.render_instruction(task) for task in tasks]
        for row in encode_rows(tokenizer, template, rows, 512):
            assert isinstance(row, Dropped)
            assert row.reason == Reason.SPECIAL


def test_ordinary_rows_keep_the_control_tokens_of_their_layout(case):
    tokenizer, template, _ = case
    rows = [template.render_pair(Pair("en", "de", text, "<b> a < b > [1] tafadhali"), 0) for text in ("good", "1 < 2", "<0x4 1>")]
    assert not any(isinstance(row, Dropped) for row in encode_rows(tokenizer, template, rows, 512))


def test_prompts_and_sentences_read_them_as_text(case):
    tokenizer, template, texts = case
    control = ControlTokens(tokenizer)
    plain = encode_prompts(tokenizer, template, [template.prompt_for_pair("en", "de", "good")])[0]
    kept = as_text(tokenizer, template, texts)
    for text, changed in zip(texts, kept, strict=True):
        assert changed != text
        assert changed.replace(" ", "") == text.replace(" ", "")
        (prompt,) = encode_prompts(tokenizer, template, [template.prompt_for_pair("en", "de", changed)])
        assert sum(index in control.ids for index in prompt) == sum(index in control.ids for index in plain)
    for example in encode_texts(tokenizer, texts, 7, 100):
        assert control.ids.isdisjoint(example["input_ids"][1:])
    assert as_text(tokenizer, template, ["good", "", "1 < 2"]) == ["good", "", "1 < 2"]


def test_a_normaliser_does_not_make_control_tokens():
    tree = json.loads(build_tokenizer("metaspace").backend_tokenizer.to_str())
    tree["normalizer"] = {"type": "NFKC"}
    from tokenizers import Tokenizer

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(tree)), eos_token="</s>", bos_token="<s>")
    text, template = "a ＜/s＞ b", Template.alpaca()
    (row,) = encode_rows(tokenizer, template, [template.render_pair(Pair("en", "de", text, "gut"), 0)], 512)
    assert row.reason == Reason.SPECIAL
    control = ControlTokens(tokenizer)
    (kept,) = control.kept_apart([text], read_special_tokens=False)
    assert control.count(kept, encode_core(tokenizer, [kept], read_special_tokens=False)[0]) == 0
