"""From the sources of the settings to what is read: published data sets in a folder, an archive or on the hub, and files of one's own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from alignx_fast.corpora.archives import is_archive, unpack
from alignx_fast.corpora.hub import from_hub
from alignx_fast.corpora.layouts import LAYOUTS, Wanted, local
from alignx_fast.corpora.settings import CorpusSource
from alignx_fast.corpora.sources import Reading, own_files
from alignx_fast.errors import UserError


def expand(sources: Sequence[CorpusSource], wanted: Wanted, folder: Path) -> list[Reading]:
    """The readings of all sources; archives are unpacked below `folder`."""
    return [reading for source in sources for reading in _expand(source, wanted, folder)]


def _expand(source: CorpusSource, wanted: Wanted, folder: Path) -> list[Reading]:
    if source.layout not in LAYOUTS:
        if source.path is not None and is_archive(source.path):
            raise UserError(
                f"{source.path} is an archive: unpack it and name its files, or set the layout of a published data set."
            )
        return own_files(source)
    if source.path is None:
        return from_hub(source, wanted)
    if is_archive(source.path):
        name = hashlib.sha256(str(Path(source.path).resolve()).encode()).hexdigest()[:12]
        return local(source, unpack(source.path, LAYOUTS[source.layout].pattern, folder / name), wanted)
    path = Path(source.path)
    if not path.exists():
        raise UserError(f"No folder {path}, where {source.layout} should be. Check the path.")
    return local(source, path, wanted)
