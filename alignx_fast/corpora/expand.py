"""From the sources of the settings to what is read: published data sets in a folder, an archive or on the hub, and files of one's own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from alignx_fast.corpora.archives import is_archive, unpack
from alignx_fast.corpora.hub import from_hub
from alignx_fast.corpora.layouts import LAYOUTS, Languages, local
from alignx_fast.corpora.settings import CorpusSource
from alignx_fast.corpora.sources import Reading, own_files
from alignx_fast.errors import UserError


def expand(sources: Sequence[CorpusSource], wanted: frozenset[str] | None, folder: Path) -> list[Reading]:
    """The readings of all sources; archives are unpacked below `folder`.

    Raises:
        UserError: a source is not there or not what it should be, or all are published data sets and none has a language.
    """
    asked = Languages(wanted)
    expanded = [_expand(source, asked, folder) for source in sources]
    if sources and all(source.layout in LAYOUTS for source in sources):
        asked.check()
    for source, readings in zip(sources, expanded, strict=True):
        if not readings:
            raise UserError(
                f"{source.path or 'The hub'} has no split `{source.split}` of {source.layout} in the languages asked for. Set split or languages."
            )
    return [reading for readings in expanded for reading in readings]


def _expand(source: CorpusSource, asked: Languages, folder: Path) -> list[Reading]:
    if source.layout not in LAYOUTS:
        if source.path is not None and is_archive(source.path):
            raise UserError(
                f"{source.path} is an archive: unpack it and name its files, or set the layout of a published data set."
            )
        return own_files(source)
    if source.path is None:
        return from_hub(source, asked)
    if is_archive(source.path):
        name = hashlib.sha256(str(Path(source.path).resolve()).encode()).hexdigest()[:12]
        return local(source, unpack(source.path, LAYOUTS[source.layout].pattern, folder / name), asked)
    path = Path(source.path)
    if not path.exists():
        raise UserError(f"No folder {path}, where {source.layout} should be. Check the path.")
    return local(source, path, asked)
