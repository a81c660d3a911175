"""`translate` gives one line for each line, whatever stands in it and whatever the model says, and nothing that a terminal obeys."""

import io
from pathlib import Path

import pytest
from support.tiny_models import tiny_model
from support.tokenizers import CHATML, build_tokenizer

from alignx_fast.evaluation import generation
from alignx_fast.printing import OBEYED
from alignx_fast.verbs import translate
from alignx_fast.verbs.translate import translate_lines

HARD = [
    *[
        "cat",
        "",
        "  ",
        "two\rlines",
        "\u2028",
        "a\u2028b\x85c\x0bd",
        "\x1b[31mred\x1b[0m",
        "nothing\x00",
        "half \ud83d",
        "tab\tbed",
    ],
    *["</s>", "<s><|im_end|>", "<think>", "### Response:\nno", "\u202eolleh", "long " * 400, "last\r\n"],
]
SAID = ["", "\n\n", "one\n\ntwo", "a\rb\u2028c", "\x1b]0;owned\x07", "\u202egnirts", "\x9b31m", " blank "]
"""Answers that a model may give."""


@pytest.fixture(scope="module", params=["alpaca", "chat"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = build_tokenizer("byte_bpe", chat_template=CHATML if request.param == "chat" else None)
    tokenizer.add_tokens(["<think>"])
    model = tiny_model("llama", vocab_size=len(tokenizer), max_position_embeddings=400)
    path = tmp_path_factory.mktemp("model")
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def lines_of(out: str) -> list[str]:
    assert out.endswith("\n")
    assert not OBEYED.search(out)
    return out[:-1].split("\n")


def test_one_line_for_each_line(folder: Path, capsys: pytest.CaptureFixture) -> None:
    translate_lines(str(folder), HARD, "en", "de")
    out, err = capsys.readouterr()
    lines = lines_of(out)
    assert len(lines) == len(HARD)
    assert [lines[at] for at in (1, 2, 4)] == ["", "", ""]
    assert "line 16 is not translated: its prompt has" in err
    assert "lines held control characters, or spelled control tokens" in err


def test_standard_input_is_split_at_line_feeds_alone(folder: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    data = b"\xef\xbb\xbfcat\r\n\r\na\rb\n\xff\xfe\nx\xe2\x80\xa8y\nlast"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data)))
    translate_lines(str(folder), None, "en", "de")
    lines = lines_of(capsys.readouterr().out)
    assert len(lines) == 6
    assert lines[1] == ""


def test_whatever_the_model_says_is_one_line(folder: Path, capsys: pytest.CaptureFixture, monkeypatch) -> None:
    said = iter(SAID)
    monkeypatch.setattr(translate, "answers", lambda *_, **__: [generation.Answer(next(said), finished=True)])
    translate_lines(str(folder), ["cat"] * len(SAID), "en", "de")
    lines = lines_of(capsys.readouterr().out)
    assert lines == ["", "", "one two", "a b c", r"\x1b]0;owned\x07", r"\u202egnirts", r"\x9b31m", "blank"]
