"""A study file: strict, with the nearest name where one is wrong; dotted and nested settings mean the same."""

from pathlib import Path

import pytest
import yaml
from support.studies import read_study, study_tree

from alignx_fast import recipes
from alignx_fast.errors import UserError
from alignx_fast.study.layout import run_settings
from alignx_fast.study.spec import load_study, merged
from alignx_fast.study.tasks import tasks_of


def test_dotted_and_nested_settings_are_merged() -> None:
    tree = {"align": {"max_steps": 4, "apart": {"weight": 1}}, "seed": 1}
    assert merged(tree, {"align.apart.weight": 2, "align": {"epochs": 3}, "data": {"languages": ["en"]}}) == {
        "align": {"max_steps": 4, "apart": {"weight": 2}, "epochs": 3},
        "seed": 1,
        "data": {"languages": ["en"]},
    }
    assert tree["align"]["apart"] == {"weight": 1}


def test_variants_stand_on_the_shared_settings(data: Path, tmp_path: Path) -> None:
    study = read_study(study_tree(data, tmp_path / "out"), tmp_path)
    base, plain, short = study.variants
    assert (base.trained, plain.trained) == (False, True)
    assert plain.settings.align == short.settings.align
    assert (plain.settings.instruct.max_steps, short.settings.instruct.max_steps) == (3, 2)
    run = run_settings(study, plain, 7)
    assert (run.seed, run.output, run.evaluation.enabled) == (7, tmp_path / "out" / "runs" / "plain" / "seed-7", False)
    assert [task.title for task in tasks_of(study)] == ["base", "plain, seed 0", "short, seed 0"]
    assert [task.donor is not None for task in tasks_of(study)] == [False, False, True]


def test_a_resolved_study_resolves_to_itself(data: Path, tmp_path: Path) -> None:
    study = read_study(study_tree(data, tmp_path / "out"), tmp_path)
    again = read_study(study.as_tree(), tmp_path)
    assert again == study


MISTAKES = {
    "unknown key": ({"varients": {}}, r"unknown setting `varients`. Did you mean `variants`\?"),
    "unknown setting": ({"variants.plain.align.max_stepz": 3}, r"variant plain: unknown setting `align.max_stepz`. Did you mean"),
    "unknown shared setting": ({"settings.algin": {}}, r"unknown setting `algin`. Did you mean `align`\?"),
    "wrong value": ({"variants.short.align.max_steps": "many"}, "variant short: setting `align.max_steps` is 'many'"),
    "no such baseline": (
        {"baseline": "plane"},
        r"`baseline` names the variant 'plane', which does not exist. Did you mean `plain`\?",
    ),
    "own evaluation": ({"variants.plain.evaluation.sentences": 5}, "variant plain sets `evaluation`, which all variants"),
    "own held-out sentences": ({"variants.plain.data.evaluation": "x"}, "variant plain sets `data.evaluation`"),
    "own seed": ({"variants.plain.seed": 5}, "variant plain sets `seed`"),
    "a seed twice": ({"seeds": [1, 1]}, "setting `seeds` is .*: names a seed twice"),
    "no variants": ({"variants": None}, "setting `variants`"),
    "a name that is no folder": ({"variants.a/b": {}}, "a/b"),
    "train is no word": ({"variants.base.train": "no"}, "variant base: `train` is 'no': give true or false"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(mistake: str, data: Path, tmp_path: Path) -> None:
    changes, words = MISTAKES[mistake]
    tree = study_tree(data, tmp_path / "out")
    for key, value in changes.items():
        tree = merged(tree, {key: value})
    with pytest.raises(UserError, match=words) as error:
        read_study(tree, tmp_path)
    assert "\n" not in str(error.value)


def test_smoke_changes_what_it_says(data: Path, tmp_path: Path) -> None:
    tree = study_tree(data, tmp_path / "out")
    with pytest.raises(UserError, match="has no `smoke` group"):
        read_study(tree, tmp_path, smoke=True)
    tree["smoke"] = {"seeds": [3], "settings": {"align.max_steps": 1}, "variants": {"short": {"instruct.max_steps": 1}}}
    small = read_study(tree, tmp_path, smoke=True)
    assert (small.seeds, small.output) == ((3,), tmp_path / "out-smoke")
    assert [(v.settings.align.max_steps, v.settings.instruct.max_steps) for v in small.variants[1:]] == [(1, 3), (1, 1)]
    assert read_study(tree, tmp_path).seeds == (0,)


@pytest.mark.parametrize("name", recipes.study_names())
def test_the_studies_that_come_with_the_package_are_read(name: str, tmp_path: Path) -> None:
    file = recipes.find_study(name)
    study, small = load_study(file, {}), load_study(file, {}, smoke=True)
    assert len(study.seeds) >= 3
    assert small.output.name == f"{name}-smoke"
    opening = file.read_text(encoding="utf-8").split("\nname:")[0].splitlines()
    assert all(line.startswith("#") for line in opening)
    assert f"alignx-fast study {name}" in "\n".join(opening)
    assert recipes.purpose(name) == opening[0].removeprefix("# ").rstrip(":")
    copied = recipes.copy(name, tmp_path)
    assert yaml.safe_load(copied.read_text()) == yaml.safe_load(file.read_text())
    with pytest.raises(UserError, match="already exists"):
        recipes.copy(name, tmp_path)


def test_the_paper_study_trains_all_variants_on_as_many_rows() -> None:
    for smoke in (False, True):
        study = load_study(recipes.find_study("paper"), {}, smoke=smoke)
        rows = {
            variant.name: sum(
                (variant.settings.stage(stage).max_steps or 0) * variant.settings.stage(stage).step_rows
                for stage in variant.settings.stages
            )
            for variant in study.variants
            if variant.trained
        }
        assert len(set(rows.values())) == 1, rows


def test_the_negatives_of_the_choices_come_from_as_many_pairs() -> None:
    for smoke in (False, True):
        study = load_study(recipes.find_study("choices"), {}, smoke=smoke)
        pairs = {
            variant.name: variant.settings.align.pairs_per_step * (variant.settings.align.max_steps or 0)
            for variant in study.variants
        }
        assert len(set(pairs.values())) == 1, pairs
