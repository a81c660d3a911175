"""Published data sets streamed from the Hugging Face hub."""

from collections.abc import Iterator
from functools import partial

from alignx_fast.config import InstructionSource, ParallelSource
from alignx_fast.corpora.layouts import LAYOUTS, Languages
from alignx_fast.corpora.settings import CorpusSource
from alignx_fast.corpora.sources import Reading
from alignx_fast.data.languages import check_language
from alignx_fast.data.lines import Record
from alignx_fast.errors import UserError, first_line

OPUS_100 = (
    "af am an ar as az be bg bn br bs ca cs cy da de dz el eo es et eu fa fi fr fy ga gd gl gu ha he hi hr hu hy id ig is it ja ka kk km "
    "kn ko ku ky li lt lv mg mk ml mn mr ms mt my nb ne nl nn no oc or pa pl ps pt ro ru rw se sh si sk sl sq sr sv ta te tg th tk tr tt "
    "ug uk ur uz vi wa xh yi yo zh zu"
)
"""Languages that OPUS-100 pairs with English."""
BACTRIAN_X = (
    "af ar az bn cs de en es et fa fi fr gl gu he hi hr id it ja ka kk km ko lt lv mk ml mn mr my ne nl pl ps pt ro ru si sl sv sw ta te "
    "th tl tr uk ur vi xh zh"
)


def from_hub(source: CorpusSource, asked: Languages) -> list[Reading]:
    """The readings of a published data set without a path.

    Raises:
        UserError: the hub does not give it out openly, or it lacks a language.
    """
    licence = source.licence or LAYOUTS[source.layout].licence
    if source.layout == "opus-100":
        codes = {check_language(code): code for code in OPUS_100.split()}
        asked.offer(source.layout, [*codes, "en"])
        readings = []
        for lang, code in codes.items():
            if asked.include(lang, "en"):
                pair = "-".join(sorted((code, "en")))
                records = partial(streamed, "Helsinki-NLP/opus-100", pair, source.split)
                parallel = ParallelSource(path=source.layout, src_lang="en", tgt_lang=lang)
                readings.append(Reading(f"{source.layout} {pair}", [], parallel, None, records, licence, source.max_rows))
        return readings
    if source.layout == "bactrian-x":
        codes = {check_language(code): code for code in BACTRIAN_X.split()}
        asked.offer(source.layout, codes)
        return [
            _instructions(
                source,
                lang,
                partial(streamed_json, f"hf://datasets/MBZUAI/Bactrian-X/data/{code}.json.gz", source.layout),
                licence,
            )
            for lang, code in codes.items()
            if asked.include(lang)
        ]
    if source.layout == "alpaca":
        asked.offer(source.layout, ["en"])
        return [_instructions(source, "en", partial(streamed, "tatsu-lab/alpaca", None, source.split), licence)]
    raise UserError(
        f"{source.layout} is not streamed from the hub: get it from {LAYOUTS[source.layout].address} and set the path of its folder or archive."
    )


def _instructions(source: CorpusSource, lang: str, records: "partial[Iterator[Record]]", licence: str) -> Reading:
    task = InstructionSource(path=source.layout, lang=lang)
    return Reading(f"{source.layout} {lang}", [], None, task, records, licence, source.max_rows)


def streamed(path: str, subset: str | None, split: str) -> Iterator[Record]:
    """The rows of a dataset of the hub, fetched as they are read."""
    yield from _rows(f"{path}/{subset or ''}[{split}]", path, subset, split=split)


def streamed_json(file: str, name: str) -> Iterator[Record]:
    """The rows of one JSON file on the hub; the same task in several languages, which has one id, becomes one group."""
    for where, row in _rows(file, "json", None, split="train", data_files=file):
        yield where, row | {"gid": f"{name}#{row['id']}"}


def _rows(title: str, path: str, subset: str | None, **options: str) -> Iterator[Record]:
    import datasets

    try:
        for number, row in enumerate(datasets.load_dataset(path, subset, streaming=True, **options)):
            yield f"{title}:{number}", row
    except Exception as error:  # the loaders raise a dozen types, their own among them
        raise UserError(
            f"Cannot stream {title}: {first_line(error)} Check that the network is there, or set the path of a folder that holds it."
        ) from None
