"""Folders of finished work, named by a fingerprint of everything that shaped it."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tokenizers
import transformers
from transformers import PreTrainedTokenizerBase

from alignx_fast.config import Settings
from alignx_fast.errors import UserError
from alignx_fast.stages import Stage

PARTIAL = ".partial-"


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


@contextmanager
def building(folder: Path) -> Iterator[Path]:
    """A new folder to fill; it takes the name `folder` when the block ends, and is removed when the block fails.

    A killed process leaves at most a folder with another name, which the next one removes.

    Raises:
        UserError: the disk is full or not writable.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(folder.parent)
        partial = Path(tempfile.mkdtemp(prefix=f"{PARTIAL}{os.getpid()}-", dir=folder.parent))
    except OSError as error:
        raise UserError(f"Cannot write to cache folder {folder.parent}: {error.strerror}. Set data.cache_dir.") from None
    try:
        yield partial
        if not folder.exists():  # another process may have finished the same work first
            partial.rename(folder)
    except OSError as error:
        raise UserError(f"Cannot write to cache folder {folder.parent}: {error.strerror}. Set data.cache_dir.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _remove_leftovers(parent: Path) -> None:
    for leftover in parent.glob(f"{PARTIAL}*"):
        pid = int(leftover.name.removeprefix(PARTIAL).split("-")[0])
        if not _alive(pid):
            shutil.rmtree(leftover, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
