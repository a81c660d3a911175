"""Archives unpacked into the work folder, as far as their files are needed."""

import re
import tarfile
import zipfile
import zlib
from pathlib import Path

from alignx_fast.data.opening import DAMAGED
from alignx_fast.errors import UserError

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".zip")


def is_archive(path: str) -> bool:
    """Whether a name is that of an archive."""
    return path.endswith(ENDINGS)


def unpack(path: str, pattern: str, folder: Path) -> Path:
    """The files of an archive whose names match, in `folder`; nothing is unpacked twice.

    Raises:
        UserError: no such archive, or one that was cut short.
    """
    done = folder / ".done"
    if done.exists():
        return folder
    try:
        if path.endswith(".zip"):
            with zipfile.ZipFile(path) as zipped:
                zipped.extractall(folder, [name for name in zipped.namelist() if re.search(pattern, name)])
        else:
            with tarfile.open(path) as tar:
                for member in tar:
                    if member.isfile() and re.search(pattern, member.name):
                        tar.extract(member, folder, filter="data")
    except FileNotFoundError:
        raise UserError(f"No archive {path}. Check the path.") from None
    except (*DAMAGED, tarfile.TarError, zipfile.BadZipFile, zlib.error):
        raise UserError(f"{path} is damaged or was cut short. Fetch it again.") from None
    folder.mkdir(parents=True, exist_ok=True)
    done.touch()
    return folder
