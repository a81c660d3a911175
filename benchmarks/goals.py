"""The numbers to reach, each as a function of measured rows: met, missed, or open where nothing was measured."""

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from benchmarks.measure import Row
from benchmarks.step.names import CACHED, EXPANDED, MICRO, NTP, TRL

OURS = {"alignx", "alignx chunked"}
STEP = "forward+backward"
LARGEST = {"one direction": "65536x65536x4096-one-bf16", "both directions": "65536x65536x4096-both-bf16"}
CPU = "8192x8192x256-one-fp32"


class Measured:
    """Rows by family, problem and implementation."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self.rows = {(row["family"], row["problem"], row["implementation"]): row for row in rows if row["status"] == "ok"}

    def value(self, family: str, problem: str, implementation: str, *path: str) -> float | None:
        found = self.rows.get((family, problem, implementation))
        for key in path:
            if found is None:
                return None
            found = found.get(key)
        return found

    def rivals(self, family: str) -> Iterator[tuple[Row, float]]:
        """Every row of ours ("alignx") with the best time of the others on the same problem."""
        for (kind, problem, implementation), row in self.rows.items():
            if kind != family or implementation != "alignx":
                continue
            times = [
                other[STEP]["ms"]
                for (other_kind, other_problem, name), other in self.rows.items()
                if (other_kind, other_problem) == (kind, problem) and name not in OURS
            ]
            if times:
                yield row, min(times)


@dataclass(frozen=True)
class Goal:
    """One number: what it is, what it should be, and how it follows from the rows (None: open)."""

    text: str
    limit: float
    holds: Callable[[float, float], bool]
    measure: Callable[[Measured], float | None]
    unit: str = "x"

    def line(self, measured: Measured) -> tuple[str, str, str, str]:
        value = self.measure(measured)
        sign = {operator.le: "≤", operator.ge: "≥"}[self.holds]
        state = "open" if value is None else "met" if self.holds(value, self.limit) else "missed"
        return self.text, f"{sign} {self.limit:g} {self.unit}", "" if value is None else f"{value:.3g} {self.unit}", state


def _over_floor(family: str, problem: str, phase: str = STEP) -> Callable[[Measured], float | None]:
    return lambda found: found.value(family, problem, "alignx", phase, "over_floor")


def _worst_over_floor(widths: Iterable[int], way: str) -> Callable[[Measured], float | None]:
    """The largest time over the floor at 65,536 queries and keys; None until every width is measured."""

    def measure(found: Measured) -> float | None:
        names = [f"65536x65536x{d}-{way}-bf16" for d in widths]
        values = [v for name in names if (v := found.value("info_nce", name, "alignx", STEP, "over_floor")) is not None]
        return max(values) if len(values) == len(names) else None

    return measure


def _worst_over_three_products(found: Measured) -> float | None:
    """Of both directions where the similarities fit, whatever floor the rows were measured against."""
    ratios = []
    for n in (4096, 16384):
        row = found.rows.get(("info_nce", f"{n}x{n}x4096-both-bf16", "alignx"))
        if row is None:
            return None
        done = row[STEP]["rate"] * row[STEP]["ms"] / 1e3  # the operations that the row's floor counts
        ratios.append(row[STEP]["over_floor"] * done / (6 * n * n * 4096))
    return max(ratios)


def _extra(family: str, problem: str, implementation: str, unit: float) -> Callable[[Measured], float | None]:
    def measure(found: Measured) -> float | None:
        extra = found.value(family, problem, implementation, "extra_bytes")
        return None if extra is None else extra / unit

    return measure


def _least_speedup(family: str, keep: Callable[[Row], bool]) -> Callable[[Measured], float | None]:
    def measure(found: Measured) -> float | None:
        return min((best / row[STEP]["ms"] for row, best in found.rivals(family) if keep(row)), default=None)

    return measure


def _quotient(one: tuple[str, ...], other: tuple[str, ...]) -> Callable[[Measured], float | None]:
    """value(one) / value(other); each is family, problem, implementation, path."""

    def measure(found: Measured) -> float | None:
        a, b = found.value(*one), found.value(*other)
        return None if a is None or b is None else a / b

    return measure


def _least(quotients: list[Callable[[Measured], float | None]]) -> Callable[[Measured], float | None]:
    return lambda found: min((q for q in (quotient(found) for quotient in quotients) if q is not None), default=None)


def _small_over_eager(found: Measured) -> float | None:
    pairs = [
        row[STEP]["ms"] / eager
        for row, _ in found.rivals("info_nce")
        if row["sizes"]["n"] <= 2048 and (eager := found.value("info_nce", row["problem"], "torch eager", STEP, "ms")) is not None
    ]
    return max(pairs, default=None)


def _error_beyond_eager(found: Measured) -> float | None:
    """The largest difference between our relative error and that of eager code in the same dtype."""
    differences = [
        row["errors"][name] - eager["errors"][name]
        for (family, problem, implementation), row in found.rows.items()
        if family == "info_nce" and implementation in OURS
        for eager in [found.rows.get((family, problem, "torch eager"))]
        if eager is not None and eager["checked_at"] == row["checked_at"]
        for name in row["errors"]
    ]
    return max(differences, default=None)


def _memory_growth(found: Measured) -> float | None:
    """Extra memory of language matching per sentence, at the largest size over that at the smallest."""
    per_sentence = [
        extra / sentences
        for sentences in (1024, 16384)
        if (extra := found.value("language_matching", f"{sentences}x4096-bf16", "alignx", "extra_bytes")) is not None
    ]
    return per_sentence[1] / per_sentence[0] if len(per_sentence) == 2 else None


def _train(case: str, implementation: str, *path: str) -> tuple[str, ...]:
    return ("train_step", case, implementation, *path)


def _train_value(case: str, implementation: str, *path: str) -> Callable[[Measured], float | None]:
    return lambda found: found.value(*_train(case, implementation, *path))


def _extra_peak(found: Measured) -> float | None:
    small = found.value(*_train("8b-qlora-align-1024", CACHED, "peak_gib"))
    large = found.value(*_train("8b-qlora-align-4096", CACHED, "peak_gib"))
    return None if small is None or large is None else large - small


def _beyond_weights(found: Measured) -> float | None:
    ours, theirs = (found.rows.get(_train("8b-qlora-align-128", name)) for name in (MICRO, EXPANDED))
    if ours is None or theirs is None:
        return None
    return (ours["peak_gib"] - ours["weights_gib"]) / (theirs["peak_gib"] - theirs["weights_gib"])


MATCHING = [f"{2 * pairs}x4096-bf16" for pairs in (512, 1024, 2048, 4096, 8192)]
SPANS = ["131072x4096-4096spans-bf16", "131072x4096-1024spans-bf16"]
LE, GE = operator.le, operator.ge

KERNELS = [
    *(
        Goal(f"InfoNCE 65,536 x 65,536 x 4,096, bf16, {way}: time over the floor", 1.18, LE, _over_floor("info_nce", name))
        for way, name in LARGEST.items()
    ),
    *(
        Goal(
            f"InfoNCE 65,536 x 65,536, bf16, {way}, D {text}: time over the floor, worst case",
            limit,
            LE,
            _worst_over_floor(widths, name),
        )
        for way, name in (("one direction", "one"), ("both directions", "both"))
        for text, limit, widths in (("2,048 and 4,096", 1.18, (2048, 4096)), ("512, 768 and 1,024", 1.3, (512, 768, 1024)))
    ),
    Goal(
        "InfoNCE, N = M 4,096 and 16,384, D 4,096, bf16, both directions: time over three products",
        1.18,
        LE,
        _worst_over_three_products,
    ),
    *(
        Goal(
            f"InfoNCE 65,536 x 65,536 x 4,096, bf16, {way}: memory beyond inputs and gradients",
            2.0,
            LE,
            _extra("info_nce", name, "alignx", 1e9),
            "GB",
        )
        for way, name in LARGEST.items()
    ),
    Goal(
        "InfoNCE, N 4,096 to 131,072, D 512 to 4,096, also ragged and under autocast: best peer's time over ours, worst case",
        1.0,
        GE,
        _least_speedup("info_nce", lambda row: row["sizes"]["n"] >= 4096),
    ),
    Goal("InfoNCE, N up to 2,048: our time over torch eager's, worst case", 1.0, LE, _small_over_eager),
    Goal("InfoNCE: relative error beyond that of eager code in the same dtype, worst case", 1e-6, LE, _error_beyond_eager, ""),
    Goal(
        "language matching, 512 to 8,192 pairs: time of expand-and-concatenate over ours, where it fits",
        50,
        GE,
        _least(
            [
                _quotient(
                    ("language_matching", name, "expand and concatenate", STEP, "ms"),
                    ("language_matching", name, "alignx", STEP, "ms"),
                )
                for name in MATCHING
            ]
        ),
    ),
    Goal("language matching: extra memory per sentence at 8,192 pairs over that at 512 pairs", 1.0, LE, _memory_growth),
    *(
        Goal(
            f"span_mean, {phase}: a copy's bytes/s over ours, worst case",
            1.18,
            LE,
            lambda found, phase=phase: max(
                (v for v in (found.value("span_mean", name, "alignx", phase, "over_floor") for name in SPANS) if v is not None),
                default=None,
            ),
        )
        for phase in ("forward", "backward")
    ),
    Goal(
        "chunked InfoNCE on a CPU, 8,192 x 8,192 x 256, fp32: memory beyond inputs and gradients",
        64,
        LE,
        _extra("info_nce", CPU, "alignx chunked", 1e6),
        "MB",
    ),
    Goal(
        "the same: our time over torch eager's, both in turn",
        0.8,
        LE,
        lambda found: found.value("info_nce", CPU, "alignx chunked", "over_eager"),
    ),
]
TRAINING = [
    Goal(
        "Llama-3-8B shape, QLoRA, stage 1, cutoff 512, 24 GB cap, 1,024 pairs a step: peak",
        20.0,
        LE,
        _train_value("8b-qlora-align-1024", CACHED, "peak_gib"),
        "GiB",
    ),
    Goal("the same, 4,096 pairs a step: peak beyond that of 1,024 pairs", 0.5, LE, _extra_peak, "GiB"),
    Goal(
        "stage 1 step over an L_ntp-only step on the same rows, without cached gradients",
        1.03,
        LE,
        _quotient(_train("8b-qlora-align-1024", MICRO, "seconds"), _train("8b-qlora-align-1024", NTP, "seconds")),
    ),
    Goal(
        "the same, with cached gradients",
        1.25,
        LE,
        _quotient(_train("8b-qlora-align-1024", CACHED, "seconds"), _train("8b-qlora-align-1024", NTP, "seconds")),
    ),
    Goal(
        "real tokens/s over expanded losses on padded batches, 16 pairs a micro-batch or the half, quarter ... that fits",
        3.0,
        GE,
        _quotient(
            _train("8b-qlora-align-128", MICRO, "tokens_per_second"), _train("8b-qlora-align-128", EXPANDED, "tokens_per_second")
        ),
    ),
    Goal("the same: memory beyond the weights over theirs", 0.333, LE, _beyond_weights),
    Goal(
        "stage 2: real tokens/s over TRL with packing and liger",
        1.2,
        GE,
        _quotient(
            _train("8b-qlora-instruct-128", CACHED, "tokens_per_second"),
            _train("8b-qlora-instruct-128", TRL, "tokens_per_second"),
        ),
    ),
    Goal(
        "bf16 LoRA, 8B shape, H200: model FLOPs utilisation",
        0.5,
        GE,
        _train_value("8b-lora-align-1024", CACHED, "utilisation"),
        "",
    ),
]
GOALS = KERNELS + TRAINING
