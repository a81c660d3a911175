"""What a disk, a folder or a limit of the system refuses, as one sentence: libraries report it in many ways."""

import errno
import os
import re
import resource
from collections.abc import Iterator

REFUSALS = {
    errno.ENOSPC: "No space left on the disk: free some{again}",
    errno.EDQUOT: "The disk quota is used up: free some of it{again}",
    errno.EFBIG: "{file} would be larger than files may be here: raise the limit (`ulimit -f`){again}",
    errno.EIO: "The disk cannot read or write {file}: check it{again}",
    errno.ESTALE: "The network disk that holds {file} is gone: bring it back{again}",
    errno.EMFILE: "Too many files are open at once: raise the limit (`ulimit -n`){again}",
    errno.ENFILE: "Too many files are open at once on this machine: end other programs{again}",
    errno.EROFS: "{file} lies on a disk that can only be read: choose another place.",
    errno.EACCES: "No permission to use {file}: give it, or choose another place.",
    errno.EPERM: "No permission to use {file}: give it, or choose another place.",
    errno.ENOENT: "{file} is not there, or its folder is not: check the path.",
    errno.ENOTDIR: "{file} cannot be used, since a part of that path is a file: choose another path.",
    errno.EISDIR: "{file} is a folder: choose another path.",
    errno.EEXIST: "{file} exists already, and is something else: choose another path.",
    errno.ENOTEMPTY: "{file} was filled by another program: remove what does not belong there{again}",
    errno.ENAMETOOLONG: "The path {file} is too long: choose a shorter one.",
    errno.ELOOP: "{file} is a link that leads back to itself: repair it.",
}
"""What is wrong and what to do, by error number; `again` is how to go on where the place can stay the same."""
NO_FOLDER = "The folder that the command was started in is gone: change to another."
NO_HOME = "`~` stands for no folder, since this user has no home: set HOME, or write paths such as data.cache_dir in full."

LONGEST = 200
"""Characters of a path that are shown."""
NUMBER = re.compile(r"(?:os error |[Ee]rrno )(\d+)")
CUT_WRITES = ("unexpected pos", "iostream error")
"""What torch says when a file could not be written to its end, without the reason."""


def refusal(error: Exception, again: str) -> str | None:
    """What the system refused, and what to do about it; None for an error of another kind.

    Args:
        again: how the sentence ends where the same command can go on afterwards.
    """
    for each in _chain(error):
        number = _number(each)
        if number == errno.ENOENT and _is_here_gone():
            return NO_FOLDER
        if number in REFUSALS:
            return REFUSALS[number].format(file=_file(each), again=again)
        if isinstance(each, RuntimeError) and "home directory" in str(each):
            return NO_HOME
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it was made of."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _number(error: BaseException) -> int | None:
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    text = str(error)
    if any(words in text for words in CUT_WRITES):
        limited = resource.getrlimit(resource.RLIMIT_FSIZE)[0] != resource.RLIM_INFINITY
        return errno.EFBIG if limited else errno.ENOSPC
    if "No space left" in text:
        return errno.ENOSPC
    # Rust and Arrow name the number in words only.
    found = NUMBER.search(text)
    return int(found[1]) if found else None


def _is_here_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _file(error: BaseException) -> str:
    name = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if not isinstance(name, str | bytes | os.PathLike):
        return "A file"
    text = os.fsdecode(name)
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}...{text[-LONGEST // 2 :]}"
