"""The preview: the whole row is shown, in the colours of its parts, and every reason for dropping has an example."""

import json

import pytest
from rich.console import Console
from support.tokenizers import KINDS, SENTENCES, build_tokenizer

from alignx_fast.config import Settings
from alignx_fast.data.preview import preview, row_panel
from alignx_fast.data.rows import Pair
from alignx_fast.data.spans import encode_rows
from alignx_fast.data.templates import Template
from alignx_fast.printing import OBEYED


def shown(renderable):
    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(renderable)
    return console.export_text()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lang", ["hi", "zh", "ru"])
def test_a_row_shows_its_text_and_colours_its_spans(kind, lang):
    tokenizer = build_tokenizer(kind)
    pair = Pair("en", lang, SENTENCES["en"][0], SENTENCES[lang][0])
    row = encode_rows(tokenizer, Template.alpaca(), [Template.alpaca().render_pair(pair, 0)], 512)[0]
    row |= {"src_lang": 0, "tgt_lang": 1, "meaning": 5}
    panel = row_panel(row, tokenizer, ["en", lang])
    text = panel.renderable
    assert "English → " in panel.title
    assert f"{len(row['input_ids'])} tokens" in panel.subtitle
    for colour, sentence in (("green", pair.src), ("cyan", pair.tgt)):
        coloured = "".join(text.plain[s.start : s.end] for s in text.spans if colour in str(s.style).split())
        assert "".join(coloured.split()).replace("↵", "") == "".join(decoded(tokenizer, sentence).split())
    assert text.plain.count("▌") == 1


def decoded(tokenizer, sentence):
    """WordPiece normalises and drops marks; the others give the sentence back."""
    return tokenizer.decode(tokenizer(sentence)["input_ids"], skip_special_tokens=True)


def test_stages_and_dropped_rows(tmp_path):
    rows = [{"src_lang": "en", "tgt_lang": "de", "src": f"word {i}", "tgt": f"Wort {i}"} for i in range(30)]
    rows.append({"src_lang": "en", "tgt_lang": "de", "src": "Word  3", "tgt": "wort 3"})
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"parallel": [{"path": str(tmp_path / "pairs.jsonl")}], "cache_dir": str(tmp_path / "cache")}
    text = shown(preview(Settings.model_validate({"data": data}), build_tokenizer(), rows=2))
    assert "Stage align: 54 training rows" in text
    assert "Stage instruct:" in text
    assert text.count("response from token") == 4
    assert "pairs.jsonl:31  Word 3 | wort 3" in text


def test_a_row_does_not_control_the_terminal(tmp_path):
    rows = [{"src_lang": "en", "tgt_lang": "de", "src": f"word {i} \u202e\x85x", "tgt": f"Wort {i}"} for i in range(30)]
    rows += [{"src_lang": "en", "tgt_lang": "de", "src": "\x1b[31mred", "tgt": "rot\u202e"}]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"parallel": [{"path": str(tmp_path / "pairs.jsonl")}], "cache_dir": str(tmp_path / "cache")}
    text = shown(preview(Settings.model_validate({"data": data, "stages": ["align"]}), build_tokenizer(), rows=2))
    assert not OBEYED.search(text)
    assert "\\x1b[31mred | rot\\u202e" in text
    assert "31 rows read + 27 made by turning pairs round = 54 training + 3 dev + 1 not used" in text
