"""The rows of a step: synthetic, with lengths spread as those of translation data, or a file's own."""

from pathlib import Path

import numpy as np

from alignx_fast.config import ParallelSource
from alignx_fast.data.corpora import read_pairs
from alignx_fast.data.rows import Pair
from alignx_fast.data.spans import Example, encode_rows
from alignx_fast.data.templates import Template
from alignx_fast.models.tiny import build_tokenizer

MAX_LENGTH = 512
PROMPT, GLUE, LANGUAGES = 24, 6, 10
"""Tokens of the instruction, and between source and target; number of languages."""
FILE_VOCABULARY = 32000


def synthetic_rows(count: int, vocabulary: int, *, pairs: bool, seed: int = 0) -> list[Example]:
    """Random tokens; sentence lengths are log-normal with median 28 and a long tail, cut at 512 tokens a row.

    The target is 0.7 to 1.4 times as long as the source. Without `pairs`, rows are instructions and carry no spans.
    """
    random = np.random.default_rng(seed)
    rows: list[Example] = []
    for meaning in range(count):
        source = int(np.clip(random.lognormal(np.log(28), 0.7), 3, 220))
        target = max(1, int(source * random.uniform(0.7, 1.4)))
        length = min(PROMPT + source + GLUE + target + 1, MAX_LENGTH)
        prompt = PROMPT + source + GLUE
        src_lang, tgt_lang = random.choice(LANGUAGES, 2, replace=False)
        spans = {"source": [PROMPT, PROMPT + source], "target": [prompt, min(prompt + target, length)]}
        rows.append(
            Example(
                input_ids=random.integers(3, vocabulary, length).tolist(),
                prompt_length=prompt,
                **(spans if pairs else {"source": [0, 0], "target": [0, 0]}),
                src_lang=int(src_lang),
                tgt_lang=int(tgt_lang),
                meaning=meaning,
            )
        )
    return rows


def rows_from_file(path: Path, count: int, vocabulary: int) -> list[Example]:
    """The first `count` translation pairs of a JSONL file, with a BPE tokenizer trained on them on the spot.

    Raises:
        ValueError: the file has fewer usable pairs.
    """
    pairs: list[Pair] = []
    for pair in read_pairs(ParallelSource(path=str(path)), None):
        if isinstance(pair, Pair):
            pairs.append(pair)
        if len(pairs) == count:
            break
    tokenizer = build_tokenizer((text for pair in pairs for text in (pair.src, pair.tgt)), min(vocabulary, FILE_VOCABULARY))
    template = Template.alpaca()
    rendered = [template.render_pair(pair, index) for index, pair in enumerate(pairs)]
    codes = sorted({code for pair in pairs for code in (pair.src_lang, pair.tgt_lang)})
    rows = []
    for meaning, (pair, example) in enumerate(zip(pairs, encode_rows(tokenizer, template, rendered, MAX_LENGTH), strict=True)):
        if isinstance(example, dict):
            languages = {"src_lang": codes.index(pair.src_lang), "tgt_lang": codes.index(pair.tgt_lang)}
            rows.append(example | languages | {"meaning": meaning})
    if len(rows) < count:
        raise ValueError(f"{path} has {len(rows)} usable pairs; {count} are needed.")
    return rows
