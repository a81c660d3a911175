"""Folders of finished work, named by a fingerprint of everything that shaped it."""

import errno
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from alignx_fast.config import Settings
from alignx_fast.contents import RECORD_FILE, difference, record_of
from alignx_fast.data.entries import PARTIAL, USED_FILE, hold_partial, partial_name, put_away, remove_leftovers
from alignx_fast.errors import UserError, first_line
from alignx_fast.files import read_object, write_json
from alignx_fast.stages import Stage

__all__ = ["PARTIAL", "NotWritableError", "building", "damage", "fingerprint", "finish", "set_aside"]

NAME_FILE = "entry.json"
FULL = (errno.ENOSPC, errno.EDQUOT)
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
"""How a file system says that another process has given an entry its name first."""


def fingerprint(settings: Settings, tokenizer: PreTrainedTokenizerBase, stage: Stage) -> str:
    """Changes with any of: data settings, seed, stage, source files (size, time), tokenizer, chat template, this package's code."""
    parallel = [path for source in settings.data.parallel for path in (source.path, source.target_path)]
    paths = [*parallel, *(source.path for source in settings.data.instructions), settings.data.evaluation]
    parts = [
        stage,
        settings.seed,
        settings.data.model_dump(mode="json", exclude={"cache_dir"}),
        [_state(path) for path in paths if path is not None],
        _tokenizer_state(tokenizer),
        _code_state(),
        [tokenizers.__version__, transformers.__version__],
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


class NotWritableError(UserError):
    """No folder can be made in the cache."""


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `folder` when the block ends, and is removed when the block fails.

    A killed process leaves at most a folder with another name, which the next one removes. Of two that build the same entry, the first to
    end gives it its name, and the other's work is thrown away.

    Raises:
        UserError: the disk is full or not writable; `NotWritableError` where nothing could be made at all.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.parent)
        partial = Path(tempfile.mkdtemp(prefix=partial_name(), dir=folder.parent))
        hold_partial(partial)
    except OSError as error:
        kind = UserError if error.errno in FULL else NotWritableError
        raise kind(_cannot_write(folder.parent, error)) from None
    try:
        yield partial
        _name(partial, folder)
    except OSError as error:
        raise UserError(_cannot_write(folder.parent, error)) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _name(partial: Path, folder: Path) -> None:
    try:
        if not folder.exists():  # an empty folder would be replaced
            partial.rename(folder)
    except OSError as error:
        if error.errno not in TAKEN:
            raise


def _cannot_write(cache: Path, error: OSError) -> str:
    return f"Cannot write to cache folder {cache}: {(error.strerror or first_line(error)).rstrip('.')}. Set data.cache_dir."


def finish(partial: Path, name: str) -> None:
    """Record size and hash of all files of an entry that is complete, and the name it was made for."""
    write_json(partial / NAME_FILE, {"entry": name})
    write_json(partial / RECORD_FILE, record_of(partial, leave_out=frozenset({USED_FILE})))


def damage(folder: Path) -> str | None:
    """What is wrong with an entry, as the end of a sentence; None where it is whole. Hashes all of it, about a second per gigabyte."""
    if not folder.is_dir():
        return "it is no folder"
    if reason := difference(folder):
        return reason
    named = read_object(folder / NAME_FILE) or {}
    return None if named.get("entry") == folder.name else f"it is {named.get('entry', 'another entry')} under another name"


def set_aside(folder: Path) -> None:
    """Remove an entry that is damaged, where that can be done; another process may have done it first."""
    with suppress(OSError):
        put_away(folder)


def _state(path: str) -> list[object]:
    """Size and time of a file, or of every file of a folder; a name on the hub or in the package stands for itself."""
    root = Path(path).expanduser()
    files = sorted(file for file in root.rglob("*") if file.is_file()) if root.is_dir() else [root] if root.is_file() else []
    return [path, *((str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files)]


def _tokenizer_state(tokenizer: PreTrainedTokenizerBase) -> str:
    tree = json.loads(tokenizer.backend_tokenizer.to_str())
    tree.pop("truncation")  # set anew on every call, and never used here
    tree.pop("padding")
    specials = [tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id, tokenizer.unk_token_id]
    text = json.dumps([tree, tokenizer.chat_template, specials], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _code_state() -> str:
    """Hash of this package's code and of the phrasebook in it."""
    digest = hashlib.sha256()
    here = Path(__file__).parent
    for file in sorted([*here.glob("*.py"), *here.glob("phrasebook/*.tsv")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()
