"""Settings of `alignx-fast prepare`: sources, filters, and how much of what is kept."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from alignx_fast.fields import AnyPath, Folder, Group, Words

Layout = Literal["opus-100", "bactrian-x", "alpaca", "flores-101", "flores-200", "ntrex", "tatoeba", "massive"]


class CorpusSource(Group):
    """One source of a corpus: files of one's own, or a published data set by the name of its layout."""

    layout: Literal["auto", Layout, "jsonl", "tsv", "csv", "parquet", "tmx", "moses", "hf"] = "auto"
    """A published data set, or a format; auto decides by the file's name."""
    path: AnyPath | None = None
    """File, folder or archive (.tar.gz, .tgz, .tar, .zip); a published data set without a path is streamed from the hub."""
    target_path: AnyPath | None = None
    """The second file of a line-aligned (Moses) pair."""
    src_lang: str | None = None
    """Language of the source side where rows do not say it."""
    tgt_lang: str | None = None
    """Language of the target side where rows do not say it."""
    columns: dict[str, str] = {}
    """Our column name to yours, e.g. {src: english, tgt: german}."""
    subset: str | None = None
    """Configuration name of a Hugging Face dataset."""
    split: str = "train"
    """Split to take: train, dev, devtest, test, as the source names it."""
    max_rows: int | None = Field(None, gt=0)
    """Keep at most this many rows of the source, drawn at random after cleaning."""
    licence: str | None = None
    """Licence, for the data card; default: that of the published data set."""


class CorpusFilters(Group):
    """What is dropped. Rows without text on a side, with the same text on both or with broken characters can never be used."""

    identical: bool = True
    """Drop pairs whose sides are the same but for case and width."""
    max_characters: int | None = Field(1000, gt=0)
    """Drop longer sentences; null keeps them."""
    max_length_ratio: float | None = Field(4.0, gt=1)
    """Drop pairs one side of which is that many times longer, characters of each script weighed by how much they say; null keeps them."""
    min_script_share: float | None = Field(0.2, gt=0, le=1)
    """Least share of letters in the scripts that the language is written in; null switches it off."""
    min_distinct_words: float | None = Field(0.3, gt=0, le=1)
    """Least share of different words (characters where words are not set apart) in a sentence of ten or more; null switches it off."""
    markup: bool = True
    """Drop pairs whose tags or placeholders differ."""
    numbers: bool = True
    """Drop pairs with digits on both sides that have no number in common."""
    language_id: float | None = Field(None, gt=0, le=1)
    """Drop sentences that py3langid takes for another language with at least this probability; slow, so off by default."""
    duplicates: bool = True
    """Drop pairs that say the same as an earlier one in either direction, but for case and blanks."""
    near_duplicates: float | None = Field(None, gt=0.3, lt=1)
    """Drop pairs whose text overlaps with that of an earlier one by this share (Jaccard similarity of letter 5-grams, by MinHash)."""
    near_leaks: float | None = Field(0.8, gt=0.3, lt=1)
    """Drop pairs that overlap so much with a sentence of a test set; null looks for equal sentences alone."""


class CorpusSettings(Group):
    """What `alignx-fast prepare` makes of which sources. Training reads the folder it writes: `data.parallel: [{path: FOLDER}]`."""

    output: Folder = Path("data/corpus")
    """Folder to write."""
    sources: list[CorpusSource] = []
    """Translation pairs and instructions."""
    test_sets: list[CorpusSource] = []
    """Sentences that must not be trained on: rows with one of them on either side are dropped."""
    languages: Words | None = None
    """Keep only rows whose languages are all in this list; default: all."""
    filters: CorpusFilters = CorpusFilters()
    pivot: str = "en"
    """Language that the next settings speak of."""
    pivoting: bool = False
    """Also make pairs without the pivot, of sentences that share their pivot side: a ring through the languages of each."""
    to_pivot: float | None = Field(None, ge=0, le=1)
    """Share of the pairs with the pivot that are turned so that they lead to it; default: as in the sources."""
    without_pivot: float | None = Field(None, ge=0, le=1)
    """Largest share of pairs without the pivot."""
    max_per_direction: int | None = Field(None, gt=0)
    """Keep at most this many pairs of two languages, drawn at random."""
    max_per_language: int | None = Field(None, gt=0)
    """Keep at most this many pairs that count for a language, which is the rarer of a pair's two."""
    rows: int | None = Field(None, gt=0)
    """Keep this many pairs in all, shared out by the temperatures."""
    language_temperature: float = Field(1.0, ge=1)
    """Languages share `rows` as n^(1/T): 1 keeps their shares, larger values lift small languages."""
    direction_temperature: float = Field(1.0, ge=1)
    """The pairs of languages within a language share its rows in the same way."""
    threads: int | None = Field(None, gt=0)
    """Threads; default: all cores. The result does not depend on it."""
    memory: str = Field("600MB", pattern=r"^\d+ ?[MG]B$")
    """Memory of the database engine; what does not fit goes to the disk."""
