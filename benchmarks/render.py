"""Tables and a plot out of the JSON files: `python -m benchmarks.render`.

Writes the part of README.md between the two markers, every row into benchmarks/results/TABLE.md, and a plot per device.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.goals import CPU, GOALS, LARGEST, STEP, Measured
from benchmarks.measure import Row
from benchmarks.results import FOLDER

BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"
HEADLINES = (*LARGEST.values(), CPU)
KERNEL_HEADER = "| problem | implementation | forward | forward + backward | rate | over floor | extra memory | largest error |"
STEP_HEADER = "| training step | implementation | attention | micro-batch | tokens/s | s/step | model FLOPs utilisation | peak | beyond weights |"


class Device:
    """All runs of one device: the newest row of every case, and the newest run's description."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.rows: dict[tuple[str, str, str], Row] = {}
        self.run: dict[str, Any] = {}

    def add(self, content: dict[str, Any]) -> None:
        self.run = content["run"]
        self.rows |= {(row["family"], row["problem"], row["implementation"]): row for row in content["rows"]}

    def caption(self) -> str:
        machine, versions = self.run["machine"], self.run["versions"]
        parts = [self.name, f"torch {versions['torch']}", f"triton {versions['triton']}"]
        if driver := machine.get("driver"):
            parts.append(f"driver {driver}")
        else:
            parts.append(f"{machine['cpu_threads']} thread{'s' * (machine['cpu_threads'] != 1)}")
        if commit := self.run["git"].get("commit"):
            parts.append(f"commit {commit[:10]}")
        return ", ".join([*parts, self.run["date"][:10]])


def load(folder: Path) -> list[Device]:
    """Every device that has results, GPUs first, and a CPU once for each number of threads; later runs replace earlier rows of the same case."""
    contents = sorted(
        (json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda content: content["run"]["date"]
    )
    devices: dict[tuple[str, int | None], Device] = {}
    for content in contents:
        machine = content["run"]["machine"]
        key = machine["device"], None if "driver" in machine else machine["cpu_threads"]
        devices.setdefault(key, Device(machine["device"])).add(content)
    return sorted(devices.values(), key=lambda device: "driver" not in device.run["machine"])


def table(rows: Iterable[Row]) -> str:
    """Markdown tables: kernels, then training steps. A case without a valid result shows why instead of a speed."""
    rows = list(rows)
    kernels = [row for row in rows if row["family"] != "train_step"]
    steps = [row for row in rows if row["family"] == "train_step"]
    tables = []
    if kernels:
        tables.append("\n".join([KERNEL_HEADER, "|---|---|---:|---:|---:|---:|---:|---:|", *map(_kernel_line, kernels)]))
    if steps:
        tables.append("\n".join([STEP_HEADER, "|---|---|---|---:|---:|---:|---:|---:|---:|", *map(_step_line, steps)]))
    return "\n\n".join(tables)


def _kernel_line(row: Row) -> str:
    head = f"| {row['family']} {row['problem']} | {row['implementation']} "
    if row["status"] != "ok":
        return head + f"| {_why(row)} | | | | | |"
    last = row.get(STEP) or row["backward"]
    cells = (
        _ms(row["forward"]["ms"]),
        _ms(last["ms"]) + (" (backward alone)" if "backward" in row else ""),
        _rate(last["rate"], last["unit"]),
        f"{last['over_floor']:.2f}x",
        _bytes(row["extra_bytes"]),
        f"{max(row['errors'].values()):.1e}",
    )
    return head + "| " + " | ".join(cells) + " |"


def _step_line(row: Row) -> str:
    head = f"| {row['problem']} | {row['implementation']} "
    if row["status"] != "ok":
        return head + f"| {_why(row)} | {_micro_batch(row)} | | | | | |"
    cells = (
        row.get("attention", ""),
        _micro_batch(row),
        f"{row['tokens_per_second']:,.0f}",
        f"{row['seconds']:.3g}",
        "" if row["utilisation"] is None else f"{row['utilisation']:.1%}",
        "" if row["peak_gib"] is None else f"{row['peak_gib']:.2f} GiB",
        "" if row["peak_gib"] is None else f"{row['peak_gib'] - row['weights_gib']:.2f} GiB",
    )
    return head + "| " + " | ".join(cells) + " |"


def _micro_batch(row: Row) -> str:
    """Empty in results from before it was recorded."""
    sizes = ((unit, row.get(f"{unit}_per_micro_batch")) for unit in ("rows", "tokens"))
    return ", ".join(f"{size:,} {unit}" for unit, size in sizes if size is not None)


def goal_table(device: Device) -> str:
    measured = Measured(device.rows.values())
    lines = [goal.line(measured) for goal in GOALS]
    return "\n".join(["| goal | wanted | measured | |", "|---|---|---|---|", *("| " + " | ".join(line) + " |" for line in lines)])


def summary(rows: Iterable[Row]) -> str:
    """The rows of one run for the terminal."""
    return table(rows)


def readme_part(devices: list[Device]) -> str:
    """What stands in the README: the largest problems and the goals that have a number, device by device."""
    if not devices:
        return "No results yet."
    parts = []
    for device in devices:
        headlines = [row for row in device.rows.values() if row["problem"] in HEADLINES or row["problem"].startswith("8b-")]
        headlines.sort(key=lambda row: (row["family"] == "train_step", row["problem"], row.get(STEP, {}).get("ms", float("inf"))))
        if not headlines:
            continue
        parts.append(
            f"**{device.caption()}**\n\n{table(headlines)}\n\n![time and memory](benchmarks/results/{plot_name(device)})"
        )
    return "\n\n".join([*parts, "Every case: [benchmarks/results/TABLE.md](benchmarks/results/TABLE.md)."])


def full_tables(devices: list[Device]) -> str:
    parts = ["# Everything measured\n\nMade by `python -m benchmarks.render` from the JSON files in this folder."]
    for device in devices:
        parts.append(f"## {device.caption()}\n\n{goal_table(device)}\n\n{table(device.rows.values())}")
    return "\n\n".join(parts) + "\n"


def replace_between_markers(text: str, part: str) -> str:
    """`text` with what stands between the markers replaced.

    Raises:
        ValueError: the markers are missing.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md lacks the lines {BEGIN} and {END}; put them where the table belongs.")
    return f"{before}{begin}\n{part}\n{end}{after}"


def plot_name(device: Device) -> str:
    return "".join(c if c.isalnum() else "-" for c in device.name.lower()).strip("-") + ".svg"


def plot(device: Device, path: Path) -> None:
    """Time and extra memory of every implementation on the device's largest InfoNCE problem, as bars."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    matplotlib.rcParams["svg.hashsalt"] = "benchmarks"  # the same numbers give the same file
    ok = [row for row in device.rows.values() if row["family"] == "info_nce" and row["status"] == "ok"]
    if not ok:
        return
    largest = max(ok, key=lambda row: (row["sizes"]["n"] * row["sizes"]["m"] * row["sizes"]["d"], row["sizes"]["symmetric"]))[
        "problem"
    ]
    rows = sorted((row for row in ok if row["problem"] == largest), key=lambda row: -row[STEP]["ms"])
    names = [row["implementation"] for row in rows]
    colours = ["#c2410c" if name.startswith("alignx") else "#94a3b8" for name in names]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 0.9 + 0.4 * len(rows)), sharey=True, layout="constrained")
    for axis, values, title in (
        (left, [row[STEP]["ms"] for row in rows], "forward + backward, ms"),
        (right, [(row["extra_bytes"] or 0) / 1e6 for row in rows], "memory beyond inputs and gradients, MB"),
    ):
        bars = axis.barh(names, values, color=colours)
        axis.bar_label(bars, fmt=lambda value: f"{value:,.0f}" if value >= 100 else f"{value:.3g}", padding=3)
        axis.margins(x=0.15)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"InfoNCE {largest}, {device.name}", fontsize=11)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _why(row: Row) -> str:
    return row["status"] + (f" ({row['reason']})" if "reason" in row else "")


def _ms(value: float) -> str:
    return f"{value:.3g} ms" if value < 1000 else f"{value / 1000:.3g} s"


def _rate(value: float, unit: str) -> str:
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def _bytes(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value / 1e9:.2f} GB" if value >= 1e9 else f"{value / 1e6:.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.render", description=__doc__)
    parser.add_argument("--results", type=Path, default=FOLDER, help="folder with the JSON files")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="file whose marked part is replaced")
    chosen = parser.parse_args()
    devices = load(chosen.results)
    for device in devices:
        plot(device, chosen.results / plot_name(device))
    (chosen.results / "TABLE.md").write_text(full_tables(devices))
    chosen.readme.write_text(replace_between_markers(chosen.readme.read_text(), readme_part(devices)))


if __name__ == "__main__":
    main()
