"""A comparison as JSON, CSV, Markdown and LaTeX."""

import csv
import io
from pathlib import Path

from alignx_fast.comparison.compare import Cell, Comparison, Difference, Row
from alignx_fast.files import write_json, write_text

CSV_COLUMNS = (
    "group",
    "metric",
    "model",
    "value",
    "low",
    "high",
    "n",
    "seeds",
    "difference",
    "difference_low",
    "difference_high",
    "p",
    "p_randomisation",
)


def write_tables(comparison: Comparison, folder: Path) -> list[Path]:
    """Write comparison.json, .csv, .md and .tex into `folder`; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"comparison.{ending}" for ending in ("json", "csv", "md", "tex")]
    write_json(files[0], comparison.model_dump(mode="json"))
    for file, text in zip(files[1:], (as_csv(comparison), as_markdown(comparison), as_latex(comparison)), strict=True):
        write_text(file, text)
    return files


def as_csv(comparison: Comparison) -> str:
    """One line for every metric and model, in full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for row in comparison.rows:
        for model, cell in row.cells.items():
            difference = row.differences.get(model)
            low, high = (cell.interval.low, cell.interval.high) if cell.interval else (None, None)
            change = (
                *((difference.value,) if difference else (None,)),
                *((difference.interval.low, difference.interval.high) if difference and difference.interval else (None, None)),
                difference.p if difference else None,
                difference.p_randomisation if difference else None,
            )
            writer.writerow((row.group, row.name, model, cell.value, low, high, cell.n, cell.seeds, *change))
    return text.getvalue()


def as_markdown(comparison: Comparison) -> str:
    """A table with one column a model; differences from the baseline in brackets, clear ones in bold."""
    lines = [
        "| | " + " | ".join(_title(model, comparison) for model in comparison.models) + " |",
        "|---|" + "---:|" * len(comparison.models),
    ]
    for group, rows in by_group(comparison):
        lines.append(f"| **{group}** |" + " |" * len(comparison.models))
        lines += [
            f"| {label(row)} | " + " | ".join(_markdown_cell(row, model) for model in comparison.models) + " |" for row in rows
        ]
    return "\n".join([*lines, "", *(f"{note}\n" for note in comparison.notes)])


def as_latex(comparison: Comparison) -> str:
    """The same as a `tabular` for the booktabs package."""
    lines = [
        r"\begin{tabular}{l" + "r" * len(comparison.models) + "}",
        r"\toprule",
        " & ".join(["", *(_escaped(_title(model, comparison)) for model in comparison.models)]) + r" \\",
    ]
    for group, rows in by_group(comparison):
        lines += [r"\midrule", rf"\multicolumn{{{len(comparison.models) + 1}}}{{l}}{{\emph{{{_escaped(group)}}}}} \\"]
        lines += [
            " & ".join([_escaped(label(row)), *(_latex_cell(row, model) for model in comparison.models)]) + r" \\" for row in rows
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", *(f"% {note}" for note in comparison.notes), ""])


def by_group(comparison: Comparison) -> list[tuple[str, list[Row]]]:
    """The rows under their headings, in order."""
    groups: dict[str, list[Row]] = {}
    for row in comparison.rows:
        groups.setdefault(row.group, []).append(row)
    return list(groups.items())


def label(row: Row) -> str:
    """The metric's name with its unit and direction."""
    return f"{row.name}{' (%)' if row.percent else ''}{'' if row.more_is_better else ', less is better'}"


def number(value: float, row: Row, *, signed: bool = False) -> str:
    """A value of the row as it is shown: percentages and scores with one decimal, the rest with three."""
    places = 3 if row.group in ("prediction", "representations") and not row.percent else 1
    return f"{100 * value if row.percent else value:{'+' if signed else ''}.{places}f}"


def shown_cell(cell: Cell, row: Row) -> str:
    """Value and half the width of its interval."""
    if cell.interval is None:
        return number(cell.value, row)
    return f"{number(cell.value, row)} ± {number((cell.interval.high - cell.interval.low) / 2, row)}"


def shown_difference(difference: Difference, row: Row) -> str:
    """The difference with its sign, and the p-value where there is one."""
    p = "" if difference.p is None else f", p = {difference.p:.3f}"
    return f"{number(difference.value, row, signed=True)}{p}"


def _markdown_cell(row: Row, model: str) -> str:
    text = shown_cell(row.cells[model], row)
    if (difference := row.differences.get(model)) is None:
        return text
    change = shown_difference(difference, row)
    return f"{text} (**{change}**)" if difference.is_clear else f"{text} ({change})"


def _latex_cell(row: Row, model: str) -> str:
    text = shown_cell(row.cells[model], row).replace("±", r"$\pm$").replace("-", "$-$")
    if (difference := row.differences.get(model)) is None:
        return text
    change = shown_difference(difference, row).replace("-", "$-$").replace("p =", "$p$ =")
    return rf"{text} (\textbf{{{change}}})" if difference.is_clear else f"{text} ({change})"


def _title(model: str, comparison: Comparison) -> str:
    return f"{model} (baseline)" if model == comparison.baseline else model


def _escaped(text: str) -> str:
    for character in "&%$#_{}":
        text = text.replace(character, f"\\{character}")
    return text
