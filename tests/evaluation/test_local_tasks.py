"""The tasks on local files: their task files, rows, prompts and scores of answers, without lm-eval."""

import gzip
import importlib
import json

import pytest
import yaml

from alignx_fast.data.languages import check_language
from alignx_fast.errors import UserError
from alignx_fast.evaluation.tasks import TASK_FILES
from alignx_fast.evaluation.tasks.answers import last_number, mgsm_score, word_f1, words, xquad_score
from alignx_fast.evaluation.tasks.prompts import lower_first, pawsx_choices, pawsx_prompt, xcopa_prompt
from alignx_fast.evaluation.tasks.rows import local_rows

FILES = sorted(TASK_FILES.glob("*.yaml"))
CONTENT = {
    "xcopa": {"premise": "It rained.", "question": "cause", "choices": ["A cloud came.", "The sun came."], "label": 0},
    "pawsx": {"sentence1": "Ann saw Bob.", "sentence2": "Bob was seen by Ann.", "label": 1},
    "mgsm": {"question": "What is 40 + 2?", "answer": "42"},
    "xquad": {"question": "Who?", "context": "Ann saw Bob.", "answers": ["Ann"]},
    "jnli": {"premise": "Ann saw Bob.", "hypothesis": "Ann is blind.", "label": "contradiction"},
    "jcommonsenseqa": {"question": "Which is red?", "choices": ["grass", "blood", "snow", "coal", "sky"], "label": 1},
}


class Loader(yaml.SafeLoader):
    """Reads `!function a.b.c` as the function of that name."""


def named_function(loader, node):
    module, _, name = loader.construct_scalar(node).rpartition(".")
    return getattr(importlib.import_module(module), name)


Loader.add_constructor("!function", named_function)


def read_task(file):
    tree = yaml.load(file.read_text(encoding="utf-8"), Loader)
    include = tree.pop("include", None)
    return (read_task(file.parent / include) if include else {}) | tree


def write_rows(folder, task, languages, split, name=None, pack=False):
    text = "".join(
        json.dumps({"task": task, "lang": code, "split": split, "id": i, **CONTENT[task]}) + "\n"
        for code in languages
        for i in range(3)
    )
    file = folder / f"understanding_{name or task}.jsonl{'.gz' if pack else ''}"
    file.write_bytes(gzip.compress(text.encode()) if pack else text.encode())


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_task_file_makes_whole_prompts(file, tmp_path):
    task = read_task(file)
    meta, words_of_task = task["metadata"], task["dataset_kwargs"]
    code = words_of_task["lang"]
    assert task["task"] == file.stem == f"local_{meta['task']}_{code}"
    assert check_language(code) == code
    write_rows(tmp_path, meta["task"], [code], task["test_split"], meta["file"].removeprefix("understanding_"))
    row = task["custom_dataset"](task_data=str(tmp_path), config_source=str(file), **meta, **words_of_task)[meta["split"]][0]
    prompt = task["doc_to_text"](row)
    for name, word in words_of_task.items():
        if name not in ("lang", "therefore", "yes", "no"):
            assert word in prompt
    for name in ("premise", "sentence1", "context", "hypothesis"):
        assert row.get(name, "").rstrip(".") in prompt
    choices = task.get("doc_to_choice", "choices")
    if task["output_type"] == "multiple_choice" and callable(choices):
        assert len(set(choices(row))) == 2
    assert task["metric_list"]
    assert all(metric["higher_is_better"] for metric in task["metric_list"])


def test_prompts_in_words():
    row = {"premise": "The man was thirsty. ", "question": "effect", "because": " because ", "therefore": " so "}
    assert xcopa_prompt(row) == "The man was thirsty so "
    assert xcopa_prompt(row | {"question": "cause"}) == "The man was thirsty because "
    assert lower_first("Işık söndü", "tr") == "ışık söndü"
    assert lower_first("İyi", "tr") == "iyi"
    assert lower_first("", "tr") == lower_first("", "en") == ""
    pair = {"sentence1": "Ann ( born 1990 ) , a nurse , left .", "sentence2": "She left .", "right": ", right? "}
    assert pawsx_prompt(pair) == "Ann (born 1990), a nurse, left, right? "
    assert pawsx_choices(pair | {"yes": "Yes. ", "no": "No. "}) == ["No. She left.", "Yes. She left."]


def test_rows_are_those_of_the_language_by_split(tmp_path):
    write_rows(tmp_path, "xcopa", ["sw", "tr"], "test", pack=True)
    options = {"file": "understanding_xcopa", "task": "xcopa", "split": "test", "columns": ["lang", "premise", "label"]}
    rows = local_rows(task_data=str(tmp_path), lang="sw", version=1.0, because=" kwa sababu ", **options)
    assert list(rows) == ["test"]
    assert rows["test"].to_list() == [{"lang": "sw", "premise": "It rained.", "label": 0, "because": " kwa sababu "}] * 3

    with pytest.raises(UserError, match=r"has no test rows of xcopa in et: it has xcopa in sw, tr\."):
        local_rows(task_data=str(tmp_path), lang="et", **options)
    with pytest.raises(UserError, match=r"it has pawsx in no language\."):
        local_rows(task_data=str(tmp_path), lang="sw", **options | {"task": "pawsx"})
    with pytest.raises(UserError, match=r"No file .*understanding_mgsm\.jsonl \(or \.jsonl\.gz\)"):
        local_rows(task_data=str(tmp_path), lang="sw", **options | {"file": "understanding_mgsm"})
    with pytest.raises(UserError, match=r"jsonl\.gz:1 has no `context`"):
        local_rows(task_data=str(tmp_path), lang="sw", **options | {"columns": ["lang", "context"]})
    with pytest.raises(UserError, match=r"name its folder with `evaluation\.task_data`"):
        local_rows(lang="sw", **options)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so it is 18", 18),
        ("$1,234 in all.", 1234),
        ("1.234.567 Euro", 1234567),
        ("3,5", 3.5),
        ("= 18.00", 18),
        ("-7", -7),
        ("১৮ টাকা", 18),
        ("12 then 13", 13),
        ("2\u00a0000 €", 2000),
        ("none", None),
    ],
)
def test_the_last_number_of_an_answer(text, number):
    assert last_number(text) == number


def test_an_answer_ends_where_the_model_asks_on():
    row = {"question_word": "Frage: ", "answer": "18"}
    assert mgsm_score(row, ["9 * 2 = 18\nFrage: Was ist 3 + 4?"]) == {"exact_match": 1.0}
    assert mgsm_score(row, ["I do not know"]) == {"exact_match": 0.0}


def test_xquad_takes_the_answer_that_fits_best():
    row = {"lang": "en", "answers": ["Denver Broncos", "the Broncos of Denver"]}
    assert xquad_score(row, ["The Denver Broncos!"]) == {"f1": 1.0, "exact_match": 1.0}
    assert xquad_score(row, ["Broncos"]) == {"f1": pytest.approx(2 / 3), "exact_match": 0.0}
    assert xquad_score(row, [""]) == {"f1": 0.0, "exact_match": 0.0}
    assert words("四 次。", "zh") == ["四", "次"]
    assert words("a la vez", "es") == ["a", "la", "vez"]
    assert word_f1(["四", "次"], ["四", "次", "球"]) == pytest.approx(0.8)
    assert word_f1([], []) == 1.0
