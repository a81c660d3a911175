"""Published data sets by name: which files of a folder they are, in which languages, and where the hub keeps them.

Every layout below is the one that its publishers give out; a folder may hold it at any depth.
"""

import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alignx_fast.config import InstructionSource, ParallelSource
from alignx_fast.corpora.settings import CorpusSource
from alignx_fast.corpora.sources import Reading
from alignx_fast.data.languages import check_language
from alignx_fast.data.lines import Record, jsonl_records, lines
from alignx_fast.data.opening import open_bytes
from alignx_fast.errors import UserError

Found = list[tuple[Path, "re.Match[str]"]]
"""Files of a folder and how their names matched."""


class Languages:
    """The languages asked for, and those that the sources have."""

    def __init__(self, wanted: frozenset[str] | None) -> None:
        self.wanted = wanted
        self.offered: dict[str, set[str]] = {}

    def offer(self, name: str, languages: Iterable[str]) -> None:
        """Note what a data set has."""
        self.offered.setdefault(name, set()).update(languages)

    def include(self, *languages: str) -> bool:
        """Whether all of these are asked for."""
        return self.wanted is None or self.wanted.issuperset(languages)

    def check(self) -> None:
        """Refuse a language that no source has, with the nearest that one has.

        Raises:
            UserError: names the first such language.
        """
        known = sorted(set().union(*self.offered.values()))
        for language in sorted(self.wanted or ()):
            if language not in known:
                near = difflib.get_close_matches(language, known, n=3, cutoff=0.4)
                hint = f"Nearest are {', '.join(near)}; known" if near else "Known"
                raise UserError(f"{' and '.join(self.offered)} has no `{language}`. {hint} are {', '.join(known)}.")


@dataclass(frozen=True)
class Layout:
    """A published data set."""

    licence: str
    pattern: str
    """Of the files that make it up, below the folder."""
    readings: Callable[["Layout", Found, CorpusSource, Languages], list[Reading]]
    address: str
    """Where to get it."""


def local(source: CorpusSource, folder: Path, asked: Languages) -> list[Reading]:
    """The readings of a published data set in a folder.

    Raises:
        UserError: the folder holds none of its files.
    """
    layout = LAYOUTS[source.layout]
    files = [folder] if folder.is_file() else sorted(file for file in folder.rglob("*") if file.is_file())
    found = [(file, match) for file in files if (match := re.search(layout.pattern, file.as_posix()))]
    if not found:
        raise UserError(
            f"{folder} holds no files of {source.layout}, which are named like {EXAMPLES[source.layout]}. Get it from {layout.address}."
        )
    return layout.readings(layout, found, source, asked)


def _opus(layout: Layout, found: Found, source: CorpusSource, asked: Languages) -> list[Reading]:
    files: dict[tuple[str, str, str | None], Path] = {}
    for file, m in found:
        if (m["split"] or m["split2"]) == source.split:
            files[m["a"] or m["a2"], m["b"] or m["b2"], m["lang"]] = file
    pairs = sorted({(a, b) for a, b, _ in files})
    asked.offer(source.layout, [check_language(code) for pair in pairs for code in pair])
    readings = []
    for a, b in pairs:
        codes = (check_language(a), check_language(b))
        if not asked.include(*codes):
            continue
        if (a, b, None) in files:
            table = files[a, b, None]
            pair = ParallelSource(path=str(table), format="parquet", src_lang=codes[0], tgt_lang=codes[1])
            readings.append(_reading(layout, source, f"{a}-{b}", [table], pairs=pair))
            continue
        sides = [files.get((a, b, code)) for code in (a, b)]
        if sides[0] is None or sides[1] is None:
            raise UserError(
                f"{next(filter(None, sides))} has no second file beside it: {source.layout} keeps two for {a}-{b}. Fetch both."
            )
        pair = ParallelSource(path=str(sides[0]), target_path=str(sides[1]), format="moses", src_lang=codes[0], tgt_lang=codes[1])
        readings.append(_reading(layout, source, f"{a}-{b}", [sides[0], sides[1]], pairs=pair))
    return readings


def _tatoeba(layout: Layout, found: Found, source: CorpusSource, asked: Languages) -> list[Reading]:
    files = {(m["a"], m["b"], m["lang"]): file for file, m in found}
    readings = []
    for a, b in sorted({(a, b) for a, b, _ in files}):
        codes = [check_language(a), check_language(b)]
        if asked.include(*codes):
            sides = [files[a, b, a], files[a, b, b]]
            pair = ParallelSource(
                path=str(sides[0]), target_path=str(sides[1]), format="moses", src_lang=codes[0], tgt_lang=codes[1]
            )
            readings.append(_reading(layout, source, f"{a}-{b}", sides, pairs=pair))
    return readings


def _aligned(layout: Layout, found: Found, source: CorpusSource, asked: Languages) -> list[Reading]:
    """A file a language, line n of each saying the same."""
    by_language = {
        check_language(m["lang"]): file for file, m in found if m.groupdict().get("split") in (None, _flores_split(source.split))
    }
    asked.offer(source.layout, by_language)
    files = {lang: file for lang, file in sorted(by_language.items()) if asked.include(lang)}
    records = partial(aligned_texts, files)
    return [_reading(layout, source, source.split, list(files.values()), records=records)] if files else []


def _massive(layout: Layout, found: Found, source: CorpusSource, asked: Languages) -> list[Reading]:
    by_language = {check_language(m["lang"]): file for file, m in found}
    asked.offer(source.layout, by_language)
    files = {lang: file for lang, file in sorted(by_language.items()) if asked.include(lang)}
    records = partial(massive_texts, files, source.split)
    return [_reading(layout, source, source.split, list(files.values()), records=records)] if files else []


def _instructions(layout: Layout, found: Found, source: CorpusSource, asked: Languages) -> list[Reading]:
    by_language = {check_language(m.groupdict().get("lang") or "en"): file for file, m in found}
    asked.offer(source.layout, by_language)
    return [
        _reading(
            layout,
            source,
            lang,
            [file],
            instructions=InstructionSource(path=str(file), lang=lang),
            records=partial(instruction_records, file, source.layout),
        )
        for lang, file in sorted(by_language.items())
        if asked.include(lang)
    ]


def _reading(
    layout: Layout,
    source: CorpusSource,
    part: str,
    files: list[Path],
    pairs: ParallelSource | None = None,
    instructions: InstructionSource | None = None,
    records: Callable[[], Iterator[Record]] | None = None,
) -> Reading:
    if pairs is None and instructions is None:
        pairs = ParallelSource(path=source.layout)
    title = f"{source.layout} {part}"
    return Reading(title, files, pairs, instructions, records, source.licence or layout.licence, source.max_rows)


def _flores_split(split: str) -> str:
    return "dev" if split == "train" else split  # FLORES has no training split


def aligned_texts(files: dict[str, Path]) -> Iterator[Record]:
    """Line n of every file as `texts`.

    Raises:
        UserError: the files differ in length.
    """
    streams = {lang: lines(str(file)) for lang, file in files.items()}
    number = 0
    while True:
        row = {lang: next(stream, None) for lang, stream in streams.items()}
        number += 1
        ended = [lang for lang, line in row.items() if line is None]
        if len(ended) == len(row):
            return
        if ended:
            other = next(lang for lang in row if lang not in ended)
            raise UserError(f"{files[ended[0]]} ends before line {number}, and {files[other]} goes on. Fetch both again.")
        texts = {lang: line[1] for lang, line in row.items() if line is not None}
        yield f"{next(iter(files.values())).parent}:{number}", {"texts": texts}


def massive_texts(files: dict[str, Path], split: str) -> Iterator[Record]:
    """The utterances of one split in all languages; the files list the same ids in the same order.

    Raises:
        UserError: they do not.
    """
    streams = [jsonl_records(str(file)) for file in files.values()]
    for rows in zip(*streams, strict=True):
        if len({row["id"] for _, row in rows}) > 1:
            raise UserError(
                f"{rows[0][0]} and {rows[-1][0]} have different ids: files of MASSIVE list the same ones in the same order."
            )
        if rows[0][1].get("partition") == split:
            yield rows[0][0], {"texts": {lang: row["utt"] for lang, (_, row) in zip(files, rows, strict=True)}}


def instruction_records(file: Path, name: str) -> Iterator[Record]:
    """Tasks of a JSON array or of JSON lines; the same task in several languages, which has one id, becomes one group."""
    with ExitStack() as stack:
        stream = stack.enter_context(open_bytes(file))
        is_array = stream.peek(64).lstrip()[:1] == b"["
        records: Iterable[Record]
        if is_array:
            try:
                records = [(f"{file}:{number}", row) for number, row in enumerate(json.load(stream), start=1)]
            except json.JSONDecodeError as error:
                raise UserError(f"{file} is not JSON: {error.msg} at line {error.lineno}. Fetch it again.") from None
        else:
            records = jsonl_records(str(file))
        for where, row in records:
            yield where, row | ({"gid": f"{name}#{row['id']}"} if row.get("id") is not None else {})


CODE = r"(?P<lang>[a-z]{2,3}(?:[-_]\w+)?)"
LAYOUTS: dict[str, Layout] = {
    "opus-100": Layout(
        "as of its sources, see opus.nlpl.eu",
        r"opus\.(?P<a>\w+)-(?P<b>\w+)-(?P<split>\w+)\.(?P<lang>\w+)$|/(?P<a2>\w+)-(?P<b2>\w+)/(?P<split2>\w+)-[\w-]+\.parquet$",
        _opus,
        "https://opus.nlpl.eu/opus-100.php",
    ),
    "bactrian-x": Layout(
        "CC BY-NC 4.0",
        r"(?:^|/)(?P<lang>[a-z]{2})\.json(?:\.gz)?$",
        _instructions,
        "https://huggingface.co/datasets/MBZUAI/Bactrian-X",
    ),
    "alpaca": Layout(
        "CC BY-NC 4.0", r"alpaca[\w.-]*\.jsonl?(?:\.gz)?$", _instructions, "https://huggingface.co/datasets/tatsu-lab/alpaca"
    ),
    "flores-101": Layout(
        "CC BY-SA 4.0", rf"(?:^|/){CODE}\.(?P<split>dev|devtest)$", _aligned, "https://github.com/facebookresearch/flores"
    ),
    "flores-200": Layout(
        "CC BY-SA 4.0", rf"(?:^|/){CODE}\.(?P<split>dev|devtest)$", _aligned, "https://github.com/facebookresearch/flores"
    ),
    "ntrex": Layout(
        "CC BY-SA 4.0", rf"newstest2019-(?:ref|src)\.{CODE}\.txt$", _aligned, "https://github.com/MicrosoftTranslator/NTREX"
    ),
    "tatoeba": Layout(
        "CC BY 2.0 FR", r"tatoeba\.(?P<a>\w+)-(?P<b>\w+)\.(?P<lang>\w+)$", _tatoeba, "https://github.com/facebookresearch/LASER"
    ),
    "massive": Layout("CC BY 4.0", r"(?:^|/)(?P<lang>[a-z]{2}-[A-Z]{2})\.jsonl$", _massive, "https://github.com/alexa/massive"),
}
EXAMPLES = {
    "opus-100": "supervised/de-en/opus.de-en-train.de",
    "bactrian-x": "data/de.json.gz",
    "alpaca": "alpaca_data.json",
    "flores-101": "dev/deu.dev",
    "flores-200": "devtest/deu_Latn.devtest",
    "ntrex": "NTREX-128/newstest2019-ref.deu.txt",
    "tatoeba": "v1/tatoeba.deu-eng.deu",
    "massive": "1.1/data/de-DE.jsonl",
}
"""A file of each, for messages."""
