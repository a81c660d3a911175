"""The built-in data set: our own phrasebook in eight languages, written as sentences with slots.

A topic file holds sentences ("The train leaves {time_at}.") and the values of their slots, aligned in all languages. Filling
the slots gives thousands of meanings. One or two fillings of every sentence are held out: training sees their sentence and
their values, never the two together, nor any sentence that reads the same in one of the languages.
"""

import functools
import itertools
import random
import string
from collections import defaultdict
from dataclasses import dataclass
from importlib.resources import files

from alignx_fast.data.dedupe import normalise
from alignx_fast.data.rows import Instruction, Meaning

PHRASEBOOK = "builtin:phrasebook"
"""The path that names it in the settings."""

FILLINGS_PER_SENTENCE = 24
"""At most so many training meanings per sentence, so that sentences with two slots do not crowd out the others."""

Values = tuple[str, ...]
"""One text in every language of the file's header."""


@dataclass(frozen=True)
class Phrasebook:
    """All of it: every meaning has all languages."""

    train: list[Meaning]
    held_out: list[Meaning]
    instructions: list[Instruction]


@functools.cache
def load_phrasebook(seed: int = 0) -> Phrasebook:
    """Read and expand the topic files; `seed` picks the fillings, held out and other."""
    train: list[Meaning] = []
    held_out: list[Meaning] = []
    for topic, text in _topics():
        for candidates in _expand(topic, text, seed):
            n_held_out = min(2, len(candidates) // 4)
            held_out += candidates[:n_held_out]
            train += candidates[n_held_out : n_held_out + FILLINGS_PER_SENTENCE]
    held_out = _distinct(held_out)
    reserved = {normalise(text) for meaning in held_out for text in meaning.texts.values()}
    train = [meaning for meaning in train if not any(normalise(text) in reserved for text in meaning.texts.values())]
    return Phrasebook(train, held_out, _instructions())


def _topics() -> list[tuple[str, str]]:
    """(topic, text) of every topic file, by name."""
    folder = files("alignx_fast.data").joinpath("phrasebook")
    entries = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".tsv")), key=lambda entry: entry.name)
    return [(entry.name[:-4], entry.read_text(encoding="utf-8")) for entry in entries if entry.name != "instructions.tsv"]


def _expand(topic: str, text: str, seed: int) -> list[list[Meaning]]:
    """For every sentence all of its fillings, in random order."""
    languages, rows = _table(text)
    slots: dict[str, list[Values]] = defaultdict(list)
    for kind, values in rows:
        if kind != "s":
            slots[kind].append(values)
    sentences = [values for kind, values in rows if kind == "s"]
    return [_fillings(f"{topic}:{number}", values, slots, languages, seed) for number, values in enumerate(sentences)]


def _fillings(name: str, sentence: Values, slots: dict[str, list[Values]], languages: Values, seed: int) -> list[Meaning]:
    used = sorted({slot for _, slot, _, _ in string.Formatter().parse(sentence[0]) if slot})
    choices = list(itertools.product(*(range(len(slots[slot])) for slot in used)))
    random.Random(f"{seed}:{name}").shuffle(choices)
    meanings = []
    for choice in choices:
        texts = {}
        for i, language in enumerate(languages):
            filled = sentence[i].format(**{slot: slots[slot][c][i] for slot, c in zip(used, choice, strict=True)})
            texts[language] = filled[0].upper() + filled[1:]  # a slot may open the sentence
        meanings.append(Meaning(":".join([name, *map(str, choice)]), texts))
    return meanings


def _distinct(meanings: list[Meaning]) -> list[Meaning]:
    """Without those that read like an earlier one in some language: retrieval could not tell them apart."""
    seen: set[tuple[str, str]] = set()
    kept = []
    for meaning in meanings:
        texts = {(language, normalise(text)) for language, text in meaning.texts.items()}
        if seen.isdisjoint(texts):
            kept.append(meaning)
        seen |= texts
    return kept


def _instructions() -> list[Instruction]:
    """instructions.tsv: an `instruction`, an `input` ("-" where there is none) and an `output` line for every task."""
    languages, rows = _table(files("alignx_fast.data").joinpath("phrasebook", "instructions.tsv").read_text(encoding="utf-8"))
    tasks = []
    for number in range(0, len(rows), 3):
        parts = dict(rows[number : number + 3])
        for i, language in enumerate(languages):
            given = "" if parts["input"][i] == "-" else parts["input"][i]
            where = f"{PHRASEBOOK}:instructions:{number // 3}"
            tasks.append(Instruction(parts["instruction"][i], given, parts["output"][i], language, where, where))
    return tasks


def _table(text: str) -> tuple[Values, list[tuple[str, Values]]]:
    """Languages of the header, then (first cell, other cells) of every line."""
    cells = [tuple(line.split("\t")) for line in text.splitlines() if line]
    return cells[0][1:], [(row[0], row[1:]) for row in cells[1:]]
