"""Files for the fuzzed readers lie in one folder a session: an input is written in a few microseconds and never read again."""

import pytest
from support.tokenizers import CHATML, build_tokenizer

from alignx_fast.data.templates import Template


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="session")
def layouts():
    """(tokenizer, layout) of every kind that is read differently."""
    kinds = [(kind, chat) for kind in ("byte_bpe", "metaspace", "wordpiece") for chat in (None, CHATML)]
    tokenizers = [build_tokenizer(kind, chat_template=chat) for kind, chat in kinds]
    tokenizers[0].add_tokens(["<think>", "<tool_call>"])
    return [(each, Template.chat(each) if chat else Template.alpaca()) for each, (_, chat) in zip(tokenizers, kinds, strict=True)]
