"""Rows as the model will see them: tokens one by one, spans in colour, and what was dropped and why."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from transformers import PreTrainedTokenizerBase

from alignx_fast.config import Settings
from alignx_fast.data.languages import language_name
from alignx_fast.data.prepare import Prepared, prepare
from alignx_fast.data.spans import Example
from alignx_fast.printing import one_line, printable

SOURCE, TARGET, RESPONSE, PROMPT, SPECIAL = "green", "cyan", "yellow", "bright_black", "bold magenta"
EXAMPLES_PER_REASON = 2


def preview(settings: Settings, tokenizer: PreTrainedTokenizerBase, rows: int = 5) -> Group:
    """`rows` random training rows of every stage with their spans, then the dropped rows by reason, as something rich can print.

    Raises:
        UserError: as `prepare`.
    """
    parts: list[RenderableType] = [_legend()]
    for stage in settings.stages:
        prepared = prepare(settings, tokenizer, stage)
        chosen = _spread(len(prepared.train), rows, settings.seed)
        parts.append(Text(f"\nStage {stage}: {rows_line(prepared)}", style="bold"))
        parts += [row_panel(prepared.train[i], tokenizer, prepared.languages) for i in chosen]
        parts.append(Text(rows_account(prepared)))
        parts.append(dropped_table(prepared.summary["dropped"], prepared.dropped_file))
    return Group(*parts)


def rows_line(prepared: Prepared) -> str:
    """What the stage trains on, in one line."""
    train, dev = prepared.summary["train"], prepared.summary["dev"]
    return (
        f"{train['rows']:,} training rows ({train['translation_rows']:,} translations, {train['instruction_rows']:,} other) in "
        f"{len(prepared.languages)} languages, {train['tokens']:,} tokens, mean {train['tokens_mean']}, longest "
        f"{train['tokens_longest']}, {train['cut_at_max_length']:,} cut; {dev['rows']:,} dev rows; "
        f"{prepared.summary['template']} layout"
    )


def rows_account(prepared: Prepared) -> str:
    """What became of every row, in one line."""
    summary = prepared.summary
    return (
        f"{summary['rows_read']:,} rows read + {summary['rows_reversed']:,} made by turning pairs round = {summary['train']['rows']:,} "
        f"training + {summary['dev']['rows']:,} dev + {sum(summary['dropped'].values()):,} not used"
    )


def row_panel(example: Example, tokenizer: PreTrainedTokenizerBase, languages: Sequence[str]) -> Panel:
    """One row: every token underlined or not by turns, in the colour of its part."""
    text = Text(overflow="fold")
    prompt = example["prompt_length"]
    special = set(tokenizer.all_special_ids)
    for number, (start, piece) in enumerate(_pieces(tokenizer, example["input_ids"], _borders(example))):
        if start == prompt:
            text.append("▌", style="bold red")
        style = _style(example, start)
        if example["input_ids"][start] in special:
            style = SPECIAL
        text.append(printable(piece).replace("\n", "↵\n"), style=f"{style} underline" if number % 2 else style)
    sides = [language_name(languages[i]) if i >= 0 else "unknown language" for i in (example["src_lang"], example["tgt_lang"])]
    is_pair = example["target"][1] > example["target"][0]
    title = f"{sides[0]} → {sides[1]}" if is_pair else f"instruction in {sides[0]}"
    counts = f"{len(example['input_ids'])} tokens, response from token {prompt}"
    if is_pair:
        counts += f", source {_range(example['source'])}, target {_range(example['target'])}"
    return Panel(text, title=title, subtitle=f"{counts}, meaning {example['meaning']}", title_align="left", subtitle_align="left")


def dropped_table(counts: dict[str, int], dropped_file: Path | None) -> Table | Text:
    """Dropped rows by reason, with the first few of each."""
    if not counts:
        return Text("No row was dropped.")
    examples: dict[str, list[str]] = defaultdict(list)
    if dropped_file is not None:
        with dropped_file.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                if len(examples[row["reason"]]) < EXAMPLES_PER_REASON:
                    examples[row["reason"]].append(
                        one_line(f"{row['where'].rpartition('/')[2]}  {' '.join(row['text'].split())[:90]}")
                    )
    table = Table("dropped because", "rows", "for example", title="Rows not used", title_justify="left")
    table.columns[1].justify = "right"
    for reason, count in counts.items():
        table.add_row(reason, f"{count:,}", Text("\n".join(examples[reason])))
    return table


def _spread(total: int, wanted: int, seed: int) -> list[int]:
    """One random row of each of `wanted` equal stretches, so that every source and kind of row is likely to be seen."""
    edges = np.linspace(0, total, min(wanted, total) + 1).astype(np.int64)
    rows: list[int] = np.random.default_rng(seed).integers(edges[:-1], edges[1:]).tolist()
    return rows


def _legend() -> Text:
    parts = [("source", SOURCE), ("target", TARGET), ("other response", RESPONSE), ("prompt", PROMPT), ("special token", SPECIAL)]
    words = [word for part in parts for word in (part, ("  ", ""))]
    return Text.assemble(*words, ("▌", "bold red"), "response begins; tokens underlined by turns")


def _borders(example: Example) -> set[int]:
    """Positions that a piece must not reach across."""
    return {*example["source"], *example["target"], example["prompt_length"]}


def _style(example: Example, position: int) -> str:
    if example["source"][0] <= position < example["source"][1]:
        return SOURCE
    if example["target"][0] <= position < example["target"][1]:
        return TARGET
    return RESPONSE if position >= example["prompt_length"] else PROMPT


def _pieces(tokenizer: PreTrainedTokenizerBase, ids: list[int], borders: set[int]) -> Iterator[tuple[int, str]]:
    """(position, text) of every token; tokens that share one character, as bytes do, come as one piece.

    A piece's text is what it adds to the text before it, because decoders treat the blank of a first token apart.
    """
    core = tokenizer.backend_tokenizer
    start = 0
    for stop in range(1, len(ids) + 1):
        window = ids[max(0, start - 8) : stop]
        before = core.decode(ids[max(0, start - 8) : start], skip_special_tokens=False)
        text = core.decode(window, skip_special_tokens=False)
        if text.endswith("\N{REPLACEMENT CHARACTER}") and stop not in borders and stop < len(ids):
            continue
        yield start, text[len(before) :] if text.startswith(before) else core.decode(ids[start:stop], skip_special_tokens=False)
        start = stop


def _range(span: list[int]) -> str:
    return f"{span[0]}-{span[1] - 1}"
