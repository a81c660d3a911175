"""Records of TMX files (Translation Memory eXchange 1.4, https://www.gala-global.org/tmx-14b): one for every translation unit."""

import os
from collections.abc import Iterator
from xml.etree import ElementTree

from alignx_fast.data.lines import Record, local
from alignx_fast.data.opening import DAMAGED, open_bytes
from alignx_fast.errors import UserError

LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def tmx_records(path: str) -> Iterator[Record]:
    """A translation unit as `texts` by language: two languages make a pair, more of them a meaning.

    A unit is forgotten once it was read, so that a file may be larger than memory.

    Raises:
        UserError: no such file, XML that is not well-formed, or damaged compressed data, with the place.
    """
    file = local(path)
    if not os.path.isfile(file):
        raise UserError(f"No file {path}. Check the path.")
    number = 0
    try:
        with open_bytes(file) as stream:
            events = ElementTree.iterparse(stream, events=("start", "end"))
            _, root = next(events)
            for event, element in events:
                if event == "end" and element.tag == "tu":
                    number += 1
                    yield f"{path}:{number}", {"texts": _texts(element)}
                    root.clear()
                elif event == "start" and element.tag == "body":
                    root = element
    except ElementTree.ParseError as error:
        raise UserError(f"{path} is not TMX: {error} (after {number} units). Check that the file is whole.") from None
    except (*DAMAGED, OSError):
        raise UserError(f"{path} is damaged (after {number} units). Fetch or compress it again.") from None


def _texts(unit: ElementTree.Element) -> dict[str, object]:
    """The first segment of every language, without the codes within it (`bpt`, `ph` and the like hold markup of other programs)."""
    texts: dict[str, object] = {}
    for variant in unit.iter("tuv"):
        code = variant.get(LANGUAGE) or variant.get("lang") or ""
        segment = variant.find("seg")
        texts.setdefault(code, "" if segment is None else _plain(segment))
    return texts


def _plain(segment: ElementTree.Element) -> str:
    parts = [segment.text or ""]
    for code in segment:
        if code.tag == "hi":  # highlighted text is text
            parts.append(_plain(code))
        parts.append(code.tail or "")
    return "".join(parts)
