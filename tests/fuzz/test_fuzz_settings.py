"""Settings of all kinds: they are read, or refused in one sentence."""

from contextlib import suppress

import yaml
from hypothesis import given
from hypothesis import strategies as st
from support import fuzzing as fuzz

from alignx_fast.cli import overrides_from
from alignx_fast.config import Settings, known_keys, load_settings
from alignx_fast.errors import UserError

NAMES = known_keys()
names = st.sampled_from(NAMES) | st.sampled_from(NAMES) | fuzz.texts
scalars = fuzz.texts | st.sampled_from(
    [
        "true",
        "no",
        "null",
        "~",
        "1",
        "0",
        "-1",
        "1e5",
        "1.5",
        ".inf",
        ".nan",
        "010",
        "1:30",
        "2026-11-25",
        "auto",
        "a,b",
        "[a, b]",
        "{a: 1}",
        "&a",
        "*a",
        "!!python/object:os.system x",
        "'",
        '"',
        "en",
        "builtin:tiny",
        "0x1F",
        "1_000",
        "9" * 5000,
    ]
)
pieces = (
    st.sampled_from(
        ["\n", "\n  ", ": ", "- ", "{", "}", "[", "]", ",", "#", "<<: *a", "&a ", "|\n  ", "? ", "\t", "---\n", "%YAML 1.1\n"]
    )
    | scalars
    | names.map(lambda name: name.rpartition(".")[2])
)


@fuzz.fuzzed(0.04)
@given(st.lists(pieces, max_size=12).map("".join).map(fuzz.encoded).flatmap(fuzz.damaged))
def test_files_of_anything(folder, data):
    path = folder / "any.yaml"
    path.write_bytes(data)
    with suppress(UserError):
        assert isinstance(load_settings(path), Settings)


@fuzz.fuzzed(0.04)
@given(st.dictionaries(names, fuzz.values | scalars | st.lists(fuzz.pair_rows.good, max_size=1), max_size=3))
def test_settings_of_any_type(folder, given):
    tree = {}
    for name, value in given.items():
        group, (*groups, leaf) = tree, name.split(".")
        for part in groups:
            group = group.setdefault(part, {})
            if not isinstance(group, dict):
                return
        group[leaf] = value
    path = folder / "typed.yaml"
    path.write_bytes(fuzz.encoded(yaml.safe_dump(tree, allow_unicode=False)))
    with suppress(UserError):
        assert isinstance(load_settings(path), Settings)


@fuzz.fuzzed(0.04)
@given(st.lists(st.tuples(names, scalars, st.booleans()), max_size=3), st.booleans())
def test_settings_of_the_command_line(given, lone):
    tokens = [token for name, value, joined in given for token in ([f"--{name}={value}"] if joined else [f"--{name}", value])]
    with suppress(UserError):
        assert isinstance(load_settings(None, overrides_from(tuple(tokens[: len(tokens) - lone]))), Settings)
