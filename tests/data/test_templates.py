"""Layouts: offsets that point at the texts, chat templates that strip, wrap or spoil, one prompt for training and generation."""

import dataclasses

import pytest
from support.tokenizers import CHATML, build_tokenizer

from alignx_fast.data.rows import Instruction, Pair
from alignx_fast.data.templates import WORDINGS, Template, choose
from alignx_fast.errors import UserError

PAIR = Pair("de", "sw", " Es regnet! ", "Mvua inanyesha!\n")
STRIPS = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] | trim }}</s>{% endfor %}"
WRAPS = (
    "{% for m in messages %}{% if m['role'] == 'user' %}[INST] <<{{ m['content'] }}>> [/INST]"
    "{% else %} ({{ m['content'] }})</s>{% endif %}{% endfor %}"
)
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m['content'] }}<|im_end|>\n{% endfor %}"
)


def test_alpaca_layout():
    row = Template.alpaca().render_pair(PAIR, 0)
    assert row.text == (
        "### Instruction:\nTranslate the following text from German to Swahili.\n\n"
        "### Input:\nEs regnet!\n\n### Response:\nMvua inanyesha!"
    )
    row = Template.alpaca().render_instruction(Instruction("Say hello.", "", "Hello!"))
    assert row.text == "### Instruction:\nSay hello.\n\n### Response:\nHello!"
    assert row.source is None


@pytest.mark.parametrize("chat", [None, CHATML, STRIPS, WRAPS, THINKS])
@pytest.mark.parametrize("wording", range(len(WORDINGS)))
def test_offsets_point_at_the_texts(chat, wording):
    template = choose("auto", build_tokenizer(chat_template=chat))
    assert template.name == ("chat" if chat else "alpaca")
    row = template.render_pair(PAIR, wording)
    assert row.text[slice(*row.source)] == "Es regnet!"
    assert row.text[slice(*row.target)] == "Mvua inanyesha!"
    assert row.prompt_end == row.target[0]
    assert "German" in row.text
    assert "Swahili" in row.text


@pytest.mark.parametrize("chat", [CHATML, STRIPS, WRAPS, THINKS])
def test_chat_layout_is_what_the_tokenizer_renders(chat):
    tokenizer = build_tokenizer(chat_template=chat)
    row = Template.chat(tokenizer).render_instruction(Instruction("Say hello.", "To a cat.", "Miaow."))
    messages = [{"role": "user", "content": "Say hello.\n\nTo a cat."}, {"role": "assistant", "content": "Miaow."}]
    assert row.text == tokenizer.apply_chat_template(messages, tokenize=False).rstrip()


def test_prompts_end_where_the_response_begins():
    template = Template.chat(build_tokenizer(chat_template=STRIPS))
    assert template.prompt_for_pair("de", "sw", "Es regnet!").endswith("Es regnet!</s>[assistant]")
    assert Template.alpaca().prompt_for_pair("de", "sw", "Es regnet!").endswith("### Input:\nEs regnet!\n\n### Response:\n")


@pytest.mark.parametrize(
    "chat",
    [
        "{% for m in messages %}{{ m['content'] | upper }}{% endfor %}",
        "{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}",
        "{{ messages[0]['content'] }}",
        "{% for m in messages %}{{ m['content'] | length }}{{ m['content'] }}{% endfor %}",
        "{{ raise_exception('no user turns please') }}",
    ],
    ids=["changes", "repeats", "hides", "depends", "raises"],
)
def test_chat_templates_that_cannot_be_used_are_refused_with_a_way_out(chat):
    with pytest.raises(UserError, match="alpaca"):
        Template.chat(build_tokenizer(chat_template=chat))


def test_chat_without_a_chat_template_is_refused():
    with pytest.raises(UserError, match="no chat template"):
        choose("chat", build_tokenizer())


def test_special_tokens_are_looked_for_in_chat_rows_only():
    template = Template.chat(build_tokenizer(chat_template=CHATML))
    assert template.special_tokens.search("a <|im_end|> b")
    assert not template.special_tokens.search("a < b | c")
    assert Template.alpaca().special_tokens is None


def test_templates_are_values():
    assert Template.alpaca() == Template.alpaca()
    assert dataclasses.replace(Template.alpaca(), name="chat") != Template.alpaca()
