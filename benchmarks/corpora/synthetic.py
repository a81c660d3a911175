"""Synthetic translation pairs in twelve languages, with faults and duplicates planted in known numbers.

Row i is a function of i alone. Of every thousand rows, those whose number ends as `FAULTS` says carry a fault; every English
sentence stands in `SHARED` rows that follow each other, with another language each, so the number of meanings is known too.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ALPHABETS = {
    "de": "abdefghiklmnoprstuwzäöüß",
    "fr": "abcdefghijlmnopqrstuvéèêç",
    "es": "abcdefghijlmnopqrstuvzñáó",
    "sw": "abdefghijklmnoprstuwyz",
    "tr": "abcçdefgğhıiklmnoöprsştuüvyz",
    "ru": "абвгдежзийклмнопрстуфхцчшщыьэюя",
    "ar": "ابتثجحخدذرزسشصضطظعغفقكلمنهوي",
    "hi": "कखगघचछजझटठडढतथदधनपफबभमयरलवशसह",
    "zh": "".join(map(chr, range(0x4E00, 0x4E00 + 900))),
    "ja": "あいうえおかきくけこさしすせそたちつてとなにぬねのはひふへほまみむめもやゆよらりるれろわをん",
    "th": "กขคงจฉชซญดตถทธนบปผฝพฟภมยรลวศสหอ",
}
ENGLISH = "abcdefghijklmnopqrstuvwy"
LANGUAGES = ("en", *ALPHABETS)
WITHOUT_SPACES = frozenset({"zh", "ja", "th"})
SHARED = 3
"""Rows in a row that share their English sentence."""
WORDS = 4096
FAULTS = {
    11: "empty",
    122: "identical",
    233: "length",
    344: "ratio",
    455: "script",
    566: "repetition",
    677: "markup",
    788: "numbers",
    899: "duplicate",
    950: "duplicate",
    500: "leak",
}
"""Last three digits of a row's number -> its fault."""
MASK = (1 << 64) - 1


def rows(count: int) -> Iterator[dict[str, str]]:
    """The first `count` rows."""
    vocabularies = {lang: _vocabulary(lang) for lang in LANGUAGES}
    for number in range(count):
        yield _row(number, vocabularies)


def faults(count: int) -> dict[str, int]:
    """How many of the first `count` rows carry each fault."""
    whole, rest = divmod(count, 1000)
    found: Counter[str] = Counter()
    for ending, fault in FAULTS.items():
        found[fault] += whole + (ending < rest)
    return dict(found)


def test_sentences(count: int) -> Iterator[dict[str, object]]:
    """The test set whose sentences the rows with the fault "leak" hold."""
    vocabularies = {lang: _vocabulary(lang) for lang in LANGUAGES}
    for number in range(500, count, 1000):
        yield {
            "id": str(number),
            "texts": {"en": _sentence("en", MASK - number, vocabularies), "de": f"Prüfsatz Nummer {number}"},
        }


def write(folder: Path, count: int, files: int = 4) -> list[Path]:
    """The rows as JSON lines in `files` files, and the test set as test.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"pairs-{i}.jsonl" for i in range(files)]
    streams = [path.open("w", encoding="utf-8") for path in paths]
    for number, row in enumerate(rows(count)):
        streams[number * files // count].write(json.dumps(row, ensure_ascii=False) + "\n")
    for stream in streams:
        stream.close()
    with (folder / "test.jsonl").open("w", encoding="utf-8") as stream:
        for sentence in test_sentences(count):
            stream.write(json.dumps(sentence, ensure_ascii=False) + "\n")
    return paths


def _row(number: int, vocabularies: dict[str, list[str]]) -> dict[str, str]:
    fault = FAULTS.get(number % 1000)
    if fault == "duplicate":  # of the row before it, the other way round and in capitals
        before = _row(number - 1, vocabularies)
        return {
            "src_lang": before["tgt_lang"],
            "tgt_lang": "en",
            "src": before["tgt"],
            "tgt": before["src"].upper(),
        }
    lang = LANGUAGES[1 + number % len(ALPHABETS)]
    src = _sentence("en", number // SHARED, vocabularies)
    tgt = _sentence(lang, number, vocabularies)
    if fault == "empty":
        tgt = "  "
    elif fault == "identical":
        tgt = src.upper()
    elif fault == "length":
        src, tgt = " ".join([src] * 40), _joined(lang, [tgt] * 40)
    elif fault == "ratio":
        src, tgt = " ".join([src] * 3), tgt[:2]
    elif fault == "script":
        tgt = _sentence("ru" if lang != "ru" else "hi", number, vocabularies)
    elif fault == "repetition":
        tgt = _joined(lang, [vocabularies[lang][number % WORDS]] * 10)
    elif fault == "markup":
        src = f"<b>{src}</b>"
    elif fault == "numbers":
        src, tgt = f"{src} 1984", f"{tgt} 73"
    elif fault == "leak":
        src = _sentence("en", MASK - number, vocabularies).upper()
    return {"src_lang": "en", "tgt_lang": lang, "src": src, "tgt": tgt}


def _sentence(lang: str, number: int, vocabularies: dict[str, list[str]]) -> str:
    """A sentence that no other number has: its first words spell the number, the others are drawn by it."""
    mixed, words = _mix(number), vocabularies[lang]
    spread = number * 0x9E3779B97  # by an odd factor: its last 36 bits are still one number's alone
    chosen = [words[spread >> shift & (WORDS - 1)] for shift in (0, 12, 24)]
    chosen += [words[mixed >> shift & (WORDS - 1)] for shift in range(0, 12 * (2 + mixed % 4), 12)]
    return _joined(lang, chosen)


def _joined(lang: str, words: list[str]) -> str:
    return ("" if lang in WITHOUT_SPACES else " ").join(words)


def _vocabulary(lang: str) -> list[str]:
    """Words of one length, so that they can be told apart without blanks too."""
    alphabet, length = ALPHABETS.get(lang, ENGLISH), 2 if lang == "zh" else 5
    words: dict[str, None] = {}
    number = sum(map(ord, lang))
    while len(words) < WORDS:
        number = _mix(number)
        words["".join(alphabet[(number >> 6 * i) % len(alphabet)] for i in range(length))] = None
    return list(words)


def _mix(number: int) -> int:
    """splitmix64: neighbouring numbers become unrelated ones."""
    number = (number + 0x9E3779B97F4A7C15) & MASK
    number = ((number ^ number >> 30) * 0xBF58476D1CE4E5B9) & MASK
    number = ((number ^ number >> 27) * 0x94D049BB133111EB) & MASK
    return number ^ number >> 31
