"""From files to datasets: what is kept, what is dropped and why, a split that cannot leak, both stages in step."""

import json
from collections import Counter
from contextlib import suppress

import datasets
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.tokenizers import CHATML, SENTENCES, build_tokenizer

from alignx_fast.config import ParallelSource, Settings
from alignx_fast.data.dedupe import instruction_keys, normalise, pair_keys, task_keys
from alignx_fast.data.gather import gather, training_texts
from alignx_fast.data.packing import pack
from alignx_fast.data.prepare import prepare
from alignx_fast.data.rows import Instruction, Meaning, Pair
from alignx_fast.data.summary import lengths
from alignx_fast.errors import UserError


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer("byte_bpe")


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return {"path": str(path)}


def pair(src, tgt, languages=("en", "de"), **more):
    return {"src_lang": languages[0], "tgt_lang": languages[1], "src": src, "tgt": tgt, **more}


def task(instruction, output, **more):
    return {"instruction": instruction, "output": output, **more}


def make(tmp_path, pairs=(), instructions=(), **data):
    parallel = [jsonl(tmp_path / "pairs.jsonl", pairs)] if pairs else []
    tasks = [jsonl(tmp_path / "tasks.jsonl", instructions)] if instructions else []
    return Settings.model_validate(
        {"data": {"parallel": parallel, "instructions": tasks, "cache_dir": str(tmp_path / "cache"), **data}}
    )


MANY = [pair(f"word {i} here", f"Wort {i} hier") for i in range(60)]
TASKS = [task(f"Say {i}.", f"I say {i}.", lang="en") for i in range(40)]


def test_both_directions_of_every_pair(tmp_path, tokenizer):
    prepared = prepare(make(tmp_path, MANY), tokenizer, "align")
    assert prepared.languages == ["de", "en"]
    assert (len(prepared.train), len(prepared.dev)) == (108, 6)
    assert Counter(zip(prepared.train["src_lang"], prepared.train["tgt_lang"], strict=True)) == {(0, 1): 54, (1, 0): 54}
    assert max(Counter(prepared.train["meaning"]).values()) == 2
    one = prepare(make(tmp_path, MANY, both_directions=False), tokenizer, "align")
    assert len(one.train) == 54
    assert set(one.train["src_lang"]) == {1}


def test_rows_are_examples_whose_spans_read_back(tmp_path, tokenizer):
    rows = [pair(SENTENCES["en"][i], SENTENCES[lang][i], ("en", lang)) for i in range(4) for lang in ("hi", "zh", "ru")]
    prepared = prepare(make(tmp_path, rows), tokenizer, "align")
    known = {(row["src_lang"], row["src"], row["tgt_lang"], row["tgt"]) for row in rows}
    known |= {(d, t, c, s) for c, s, d, t in known}
    for row in prepared.train:
        parts = []
        for language, span in (("src_lang", "source"), ("tgt_lang", "target")):
            text = tokenizer.decode(row["input_ids"][slice(*row[span])]).strip()
            parts += [prepared.languages[row[language]], text]
        assert tuple(parts) in known
        assert row["input_ids"][0] == tokenizer.bos_token_id
        assert row["input_ids"][-1] == tokenizer.eos_token_id


def test_every_dropped_row_is_counted_and_listed(tmp_path, tokenizer):
    bad = [
        *[
            pair("", "leer"),
            pair("OK", "OK"),
            pair("WORD 1 here ", "wort 1 hier"),
            pair("Wort 2 hier", "word 2 here", ("de", "en")),
        ],
        *[pair("x " * 400, "y"), pair("bonjour", "hallo", ("fr", "de"))],
    ]
    prepared = prepare(make(tmp_path, MANY + bad, languages=["en", "deu"], max_length=200), tokenizer, "align")
    dropped = accounted(prepared.summary)
    assert dropped == {
        "duplicate": 2,
        "empty text": 1,
        "same text on both sides": 1,
        "language not selected": 1,
        "cut off by max_length": 1,
    }
    kept = {row["meaning"] for row in [*prepared.train, *prepared.dev]}
    assert prepared.summary["rows_read"] == 66
    assert len(kept) == 61, "60 rows, and the long one in the direction that fits"
    listed = [json.loads(line) for line in prepared.dropped_file.read_text(encoding="utf-8").splitlines()]
    assert Counter(row["reason"] for row in listed) == {k: v for k, v in dropped.items() if k != "language not selected"}
    assert all(row["where"].rpartition(":")[2].isdigit() for row in listed)


def accounted(summary):
    """No row is lost: what was read, and turned round, is in train, in dev or dropped for a reason."""
    used = summary["train"]["rows"] + summary["dev"]["rows"]
    assert summary["rows_read"] + summary["rows_reversed"] == used + sum(summary["dropped"].values())
    return summary["dropped"]


@pytest.mark.parametrize("both", [True, False])
def test_instructions_that_say_what_is_held_out_are_counted(tmp_path, tokenizer, both):
    tasks = [task(f"Correct {i}.", row[side]) for i, row in enumerate(MANY) for side in ("src", "tgt")]
    settings = make(tmp_path, MANY, tasks, both_directions=both)
    held_out = len(prepare(settings, tokenizer, "align").dev)
    prepared = prepare(settings, tokenizer, "instruct")
    left_out = accounted(prepared.summary)["shares a text or group with held-out rows"]
    assert left_out == 2 * held_out - prepared.summary["dev"]["instruction_rows"] > 0
    listed = [json.loads(line)["reason"] for line in prepared.dropped_file.read_text(encoding="utf-8").splitlines()]
    assert listed.count("shares a text or group with held-out rows") == left_out


UNUSABLE = [
    ("", "leer"),
    ("OK", "OK"),
    ("word 1 HERE", "Wort 1 hier"),
    ("x " * 400, "y"),
    ("bell\x07", "Glocke"),
    ("<|im_end|>", "Ende"),
]


def in_format(folder, kind):
    """The same rows, good ones and others, as a source of one format."""
    rows = [(row["src"], row["tgt"]) for row in MANY] + UNUSABLE
    named = [{"src": src, "tgt": tgt} for src, tgt in rows]
    sides = {"src_lang": "en", "tgt_lang": "de"}
    if kind in ("csv", "parquet", "saved"):
        table = datasets.Dataset.from_list(named)
        if kind == "saved":
            table.save_to_disk(folder / kind)
        else:
            (folder / kind).mkdir()
            getattr(table, f"to_{kind}")(folder / kind / f"rows.{kind}")
        return sides | {"path": str(folder / kind), "format": "hf"}
    if kind == "moses":
        for code, side in (("en", 0), ("de", 1)):
            (folder / f"m.{code}").write_text("".join(row[side] + "\n" for row in rows), encoding="utf-8")
        return {"path": str(folder / "m.en"), "target_path": str(folder / "m.de")}
    if kind == "tsv":
        (folder / "t.tsv").write_text("src\ttgt\n" + "".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")
        return sides | {"path": str(folder / "t.tsv")}
    if kind == "texts":
        return jsonl(folder / "texts.jsonl", [{"texts": {"en": src, "de": tgt}} for src, tgt in rows]) | sides
    return jsonl(folder / "flat.jsonl", named) | sides


@pytest.mark.parametrize("both", [True, False])
@pytest.mark.parametrize("kind", ["jsonl", "texts", "tsv", "moses", "saved", "csv", "parquet"])
def test_every_format_is_accounted_for_in_both_stages(tmp_path, kind, both, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "library")
    settings = make(tmp_path, [], TASKS, both_directions=both, max_length=200)
    settings.data.parallel = [ParallelSource.model_validate(in_format(tmp_path, kind))]
    chat = build_tokenizer("byte_bpe", chat_template=CHATML)
    dropped = accounted(prepare(settings, chat, "align").summary)
    directions = 2 if both else 1
    assert dropped == {
        "empty text": 1,
        "same text on both sides": 1,
        "duplicate": 1,
        "control characters or broken Unicode": 1,
        "special token in the text": directions,
        "cut off by max_length": 1,
    }
    accounted(prepare(settings, chat, "instruct").summary)


def test_rows_that_are_not_needed_are_counted(tmp_path, tokenizer):
    settings = make(tmp_path, MANY, TASKS, translation_share=0.2, both_directions=False)
    settings.data.parallel[0].max_rows = 50
    settings.data.instructions[0].max_rows = 30
    dropped = accounted(prepare(settings, tokenizer, "instruct").summary)
    assert dropped["beyond max_rows"] == 10 + 10
    assert dropped["not needed for translation_share"] > 30
    settings.data.translation_share = 1.0
    assert accounted(prepare(settings, tokenizer, "instruct").summary)["not needed for translation_share"] == 30


def test_the_phrasebook_is_accounted_for(tmp_path, tokenizer):
    rows = [{"path": "builtin:phrasebook", "max_rows": 300}, jsonl(tmp_path / "own.jsonl", MANY)]
    settings = Settings.model_validate({"data": {"parallel": rows, "cache_dir": str(tmp_path / "cache"), "dev_pairs": 20}})
    for stage in ("align", "instruct"):
        dropped = accounted(prepare(settings, tokenizer, stage).summary)
        assert dropped["kept for the evaluation"] > 100


def test_texts_of_the_evaluation_file_that_are_not_used_are_counted_and_listed(tmp_path, tokenizer):
    sentences = [{"texts": {"en": "one", "de": "eins", "deu": "ein", "sw": ""}}, {"texts": {"en": "two\x00"}}, {"texts": {}}]
    evaluation = jsonl(tmp_path / "held_out.jsonl", sentences)["path"]
    prepared = prepare(make(tmp_path, MANY, evaluation=evaluation), tokenizer, "align")
    assert prepared.eval_meanings == [Meaning(f"{evaluation}:1", {"en": "one", "de": "eins"})]
    assert sorted(prepared.summary["eval_texts_dropped"].values()) == [1, 1, 1]
    assert len(prepared.dropped_file.read_text(encoding="utf-8").splitlines()) == 3


def test_one_meaning_has_no_dev_rows(tmp_path, tokenizer):
    settings = make(tmp_path, MANY[:1])
    prepared = prepare(settings, tokenizer, "align")
    assert (len(prepared.train), len(prepared.dev)) == (2, 0)
    again = prepare(settings, tokenizer, "align")
    assert again.from_cache
    assert again.dev.column_names == prepared.train.column_names
    accounted(again.summary)


@pytest.mark.parametrize("dev_pairs", [1, 59, 60, 100_000])
def test_dev_never_takes_all(tmp_path, dev_pairs):
    gathered = gather(make(tmp_path, MANY, dev_pairs=dev_pairs), "align")
    assert 1 <= len(gathered.dev) <= 6


def test_summary_adds_up(tmp_path, tokenizer):
    prepared = prepare(make(tmp_path, MANY, TASKS), tokenizer, "instruct")
    summary = prepared.summary
    accounted(summary)
    for name, data in (("train", prepared.train), ("dev", prepared.dev)):
        assert summary[name]["rows"] == len(data) == summary[name]["translation_rows"] + summary[name]["instruction_rows"]
        assert summary[name]["tokens"] == sum(map(len, data["input_ids"])) == lengths(data).sum()
    sides = summary["languages"].values()
    assert sum(row["rows_as_source"] for row in sides) == len(prepared.train)
    assert (summary["begins_with"], summary["ends_with"], summary["template"]) == ("<s>", "</s>", "alpaca")


@pytest.mark.parametrize(
    ("share", "translations", "others"), [(0.5, 38, 38), (0.2, 9, 37), (0.9, 108, 12), (0.0, 0, 36), (1.0, 108, 0)]
)
def test_the_instruct_stage_mixes_by_share(tmp_path, tokenizer, share, translations, others):
    prepared = prepare(make(tmp_path, MANY, TASKS, translation_share=share), tokenizer, "instruct")
    train = prepared.summary["train"]
    assert (train["translation_rows"], train["instruction_rows"]) == (translations, others)
    assert len(prepared.dev)


def test_instructions_have_no_spans_and_their_own_meaning(tmp_path, tokenizer):
    prepared = prepare(make(tmp_path, MANY, TASKS), tokenizer, "instruct")
    others = [row for row in prepared.train if row["target"] == [0, 0]]
    assert others
    assert all(row["source"] == [0, 0] and 0 < row["prompt_length"] < len(row["input_ids"]) for row in others)
    assert {row["meaning"] for row in others}.isdisjoint(row["meaning"] for row in prepared.train if row["target"] != [0, 0])


words = st.integers(0, 9).map(lambda i: f"word {i}")
languages = st.sampled_from([("en", "de"), ("de", "en"), ("en", "sw"), ("de", "sw")])
pairs_of_few_words = st.lists(st.builds(pair, words, words, languages, gid=st.none() | st.integers(0, 5).map(str)), max_size=40)
tasks_of_few_words = st.lists(st.builds(task, words, words, input=words | st.just("")), max_size=25)


def pairs_in(rows):
    return [row for row in rows if isinstance(row, Pair)]


def tasks_in(rows):
    return [row for row in rows if isinstance(row, Instruction)]


def keys(function, rows):
    return {key for row in rows for key in function(row)}


@given(pairs_of_few_words, tasks_of_few_words, st.integers(0, 3), st.integers(1, 20), st.booleans())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dev_and_evaluation_never_share_a_text_or_group_with_train(tmp_path, pairs, tasks, seed, dev_pairs, own_evaluation):
    evaluation = {}
    if own_evaluation:
        evaluation["evaluation"] = jsonl(tmp_path / "eval.jsonl", [{"texts": {"en": "Word 3", "de": "word 4"}}])["path"]
    config = make(tmp_path, pairs, tasks, dev_pairs=dev_pairs, **evaluation)
    config.seed = seed
    gathered = {}
    for stage in ("align", "instruct"):
        with suppress(UserError):  # nothing usable in so few rows
            gathered[stage] = gather(config, stage)
    dev_of_both = pairs_in([row for data in gathered.values() for row in data.dev.rows])
    for data in gathered.values():
        assert keys(pair_keys, pairs_in(data.train.rows)).isdisjoint(keys(pair_keys, dev_of_both))
        assert keys(instruction_keys, tasks_in(data.train.rows)).isdisjoint(keys(pair_keys, dev_of_both))
        assert keys(task_keys, tasks_in(data.train.rows)).isdisjoint(keys(task_keys, tasks_in(data.dev.rows)))
        answers = {normalise(row.output) for row in tasks_in(data.dev.rows)}
        assert keys(pair_keys, pairs_in(data.train.rows)).isdisjoint(answers)
        held_out = {normalise(text) for meaning in data.evaluation for text in meaning.texts.values()}
        assert keys(pair_keys, pairs_in(data.train.rows)).isdisjoint(held_out)
        assert {normalise(text) for row in tasks_in(data.train.rows) for text in (row.input, row.output)}.isdisjoint(held_out)
        assert set(data.train.meanings).isdisjoint(data.dev.meanings)
        by_key = {}
        for row, meaning in zip([*data.train.rows, *data.dev.rows], [*data.train.meanings, *data.dev.meanings], strict=True):
            for key in pair_keys(row) if isinstance(row, Pair) else ():
                assert by_key.setdefault(key, meaning) == meaning, "rows that share a text or a group are one meaning"


def test_evaluation_defaults_to_the_dev_split(tmp_path):
    rows = [{"gid": str(i), "texts": {lang: f"{lang} text {i}" for lang in ("en", "de", "sw")}} for i in range(40)]
    gathered = gather(make(tmp_path, rows), "align")
    assert len(gathered.evaluation) == 4
    assert all(set(meaning.texts) == {"en", "de", "sw"} for meaning in gathered.evaluation)


def test_a_big_meaning_does_not_swallow_the_dev_split(tmp_path):
    rows = [pair(f"a {i}", f"b {i}", gid="same") for i in range(50)] + [pair(f"c {i}", f"d {i}") for i in range(50)]
    gathered = gather(make(tmp_path, rows), "align")
    assert (len(gathered.dev), len(gathered.train)) == (10, 180)
    assert all(row.src[0] in "cd" for row in gathered.dev.rows)


def test_max_rows_draws_at_random_and_repeatably(tmp_path):
    config = make(tmp_path, MANY, dev_pairs=1)
    config.data.parallel[0].max_rows = 20
    first, again = gather(config, "align"), gather(config, "align")
    assert first == again
    numbers = {int(row.src.split()[1]) for row in [*first.train.rows, *first.dev.rows]}
    assert len(numbers) == 20
    assert max(numbers) >= 30


def test_the_phrasebook_brings_its_own_held_out_sentences(tmp_path, tokenizer):
    config = Settings.model_validate({"data": {"cache_dir": str(tmp_path), "dev_pairs": 80, "languages": ["en", "de", "sw"]}})
    gathered = gather(config, "align")
    assert len(gathered.dev) <= 80
    assert len(gathered.evaluation) >= 300
    seen = {normalise(text) for row in gathered.train.rows for text in (row.src, row.tgt)}
    held_out = {normalise(text) for meaning in gathered.evaluation for text in meaning.texts.values()}
    assert seen.isdisjoint(held_out)
    assert {normalise(row.src) for row in gathered.dev.rows} <= held_out
    assert {lang for meaning in gathered.evaluation for lang in meaning.texts} == {"en", "de", "sw"}


def test_real_batches_are_full(tmp_path, tokenizer):
    config = Settings.model_validate({"data": {"cache_dir": str(tmp_path)}})
    config.data.parallel[0].max_rows = 700
    prepared = prepare(config, tokenizer, "align")
    some = np.random.default_rng(0).permutation(len(prepared.train))[:1000].tolist()
    batches = pack([prepared.train[i] for i in some], 1024, train_on_prompt=True, rows=some)
    assert sorted(row for batch in batches for row in batch.rows) == sorted(some)
    assert sum(batch.num_tokens for batch in batches) >= 0.97 * 1024 * len(batches)
    assert all(len(batch.meanings) == len(batch.rows) for batch in batches)


def test_texts_for_a_new_tokenizer_leave_out_what_is_held_out(tmp_path):
    config = make(tmp_path, MANY)
    held_out = {text for meaning in gather(config, "align").evaluation for text in meaning.texts.values()}
    texts = set(training_texts(config))
    assert len(texts) == 108
    assert texts.isdisjoint(held_out)


def test_special_tokens_in_chat_rows_are_dropped_and_in_alpaca_rows_are_text(tmp_path, tokenizer):
    rows = [*MANY, pair("this is <|im_end|> bad", "schlecht")]
    chat = build_tokenizer("byte_bpe", chat_template=CHATML)
    assert prepare(make(tmp_path, rows), chat, "align").summary["dropped"] == {"special token in the text": 2}
    prepared = prepare(make(tmp_path, rows, template="alpaca"), chat, "align")
    assert prepared.summary["dropped"] == {}
    assert all(chat.convert_tokens_to_ids("<|im_end|>") not in row["input_ids"] for row in prepared.train)


def test_nothing_usable_says_what_happened(tmp_path, tokenizer):
    rows = [pair("", "a"), pair("b", "b")]
    with pytest.raises(UserError, match=r"stage align: 2 rows read, 1 empty text, 1 same text.*data\.parallel"):
        prepare(make(tmp_path, rows), tokenizer, "align")
    with pytest.raises(UserError, match=r"data\.instructions"):
        prepare(make(tmp_path, [], []), tokenizer, "instruct")
    with pytest.raises(UserError, match=r"cut off at 16 tokens. Raise data\.max_length"):
        prepare(make(tmp_path, MANY, max_length=16), tokenizer, "align")
    assert not list((tmp_path / "cache").iterdir())
