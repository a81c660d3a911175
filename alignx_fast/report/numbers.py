"""The page's numbers: headline averages, tables of every score, training and data summaries."""

import math
import statistics
from collections.abc import Callable, Iterable
from typing import Any

from alignx_fast.report.read import MOMENTS, STAGES, Run

SAMPLES = 3  # translations shown of each direction


def headline(run: Run) -> list[dict[str, Any]]:
    """One card per score: {"name", "note", "better", "values": [(moment, text)], "control"}; only scores that the run has."""
    translated = common(run, "translation")
    predicted = common(run, "perplexity")
    answered = common(run, "understanding")
    cards = [
        card(run, "Retrieval top-1", "more is better", percent, lambda scores: (scores.get("retrieval") or {}).get("average")),
        card(
            run,
            "chrF++",
            "0 to 100, more is better",
            decimal,
            lambda scores: average(scores, "translation", "chrf++", translated),
        ),
        card(run, "BLEU", "0 to 100, more is better", decimal, lambda scores: average(scores, "translation", "bleu", translated)),
        card(run, "Perplexity", "per token, less is better", decimal, lambda scores: geometric(scores, predicted)),
        card(
            run,
            "Understanding",
            "tasks, more is better",
            percent,
            lambda scores: average(scores, "understanding", "score", answered),
        ),
    ]
    if cards[0] and (chance := first(run, lambda scores: (scores.get("retrieval") or {}).get("chance"))):
        cards[0]["note"] = f"chance {percent(chance)}, more is better"
    return [found for found in cards if found]


def card(
    run: Run, name: str, note: str, show: Callable[[float], str], score: Callable[[dict[str, Any]], float | None]
) -> dict[str, Any] | None:
    """The score at every moment that has it, or None."""
    values = [(when, show(value)) for when, scores in run.evaluation.items() if (value := score(scores)) is not None]
    return {"name": name, "note": note, "values": values} if values else None


def common(run: Run, part: str) -> set[str]:
    """Keys of `part` that every moment with that part has: averages are taken over these, so that they compare like with like."""
    keys = [set(scores[part]) for scores in run.evaluation.values() if scores.get(part)]
    return set.intersection(*keys) if keys else set()


def average(scores: dict[str, Any], part: str, name: str, keys: set[str]) -> float | None:
    values = [scores[part][key][name] for key in sorted(keys)] if scores.get(part) else []
    return sum(values) / len(values) if values else None


def by_chance(run: Run) -> tuple[str, str] | None:
    """Mean chrF++ and BLEU of answering with another sentence's reference."""
    scores = first(
        run, lambda scores: [pair["chance"] for pair in scores.get("translation", {}).values() if "chance" in pair] or None
    )
    if not scores:
        return None
    chrf, bleu = (sum(score[name] for score in scores) / len(scores) for name in ("chrf++", "bleu"))
    return decimal(chrf), decimal(bleu)


def geometric(scores: dict[str, Any], languages: set[str]) -> float | None:
    """Geometric mean of the languages' perplexities."""
    values = [scores["perplexity"][language]["perplexity"] for language in sorted(languages)] if scores.get("perplexity") else []
    if not values or None in values:
        return None
    return math.exp(sum(math.log(value) for value in values) / len(values))


def table(run: Run, part: str, columns: dict[str, tuple[str, Callable[[float], str]]]) -> dict[str, Any] | None:
    """A row for each key of `part`, and for each score in `columns` (name -> heading, format) a column per moment."""
    moments = {when: scores[part] for when, scores in run.evaluation.items() if scores.get(part)}
    if part == "retrieval":
        moments = {when: pairs["pairs"] for when, pairs in moments.items() if pairs.get("pairs")}
    if not moments:
        return None
    rows = []
    for key in sorted({key for values in moments.values() for key in values}):
        counts = [values[key].get("n", values[key].get("tokens")) for values in moments.values() if key in values]
        cells = [cell(values.get(key, {}).get(name), show) for name, (_, show) in columns.items() for values in moments.values()]
        rows.append([key, *cells, counts[0]])
    return {
        "groups": [heading for heading, _ in columns.values()],
        "moments": [MOMENTS[when] for when in moments],
        "count": {"perplexity": "tokens", "understanding": "examples"}.get(part, "sentences"),
        "rows": rows,
    }


def layer_table(run: Run) -> dict[str, Any] | None:
    """A row for each layer: cosine of translations and of unrelated sentences, CKA and retrieval at every moment."""
    moments = {
        when: scores["layers"] for when, scores in run.evaluation.items() if (scores.get("layers") or {}).get("similarity")
    }
    if not moments:
        return None
    columns = {"similarity": "translations", "unrelated": "unrelated", "cka": "CKA", "retrieval": "retrieval"}
    columns = {name: heading for name, heading in columns.items() if any(name in layers for layers in moments.values())}
    depth = max(len(layers["similarity"]) for layers in moments.values())

    def value(layers: dict[str, Any], name: str, layer: int) -> str:
        values = layers.get(name) or []
        return cell(values[layer] if layer < len(values) else None, percent if name == "retrieval" else cosine)

    rows = [[layer, *(value(layers, name, layer) for name in columns for layers in moments.values())] for layer in range(depth)]
    return {"groups": list(columns.values()), "moments": [MOMENTS[when] for when in moments], "rows": rows}


def samples(run: Run) -> list[dict[str, Any]]:
    """The first `SAMPLES` translations of each direction, as they are: source, reference and every moment's answer."""
    moments = {when: scores["translation"] for when, scores in run.evaluation.items() if scores.get("translation")}
    found = []
    for direction in sorted({key for scores in moments.values() for key in scores}):
        by_source: dict[str, dict[str, Any]] = {}
        for when, scores in moments.items():
            for example in scores.get(direction, {}).get("examples", []):
                entry = by_source.setdefault(example["source"], {"direction": direction, **example, "answers": {}})
                entry["answers"][when] = example["hypothesis"]
        found += list(by_source.values())[:SAMPLES]
    return found


def training(run: Run) -> list[dict[str, Any]]:
    """A row for each stage that has steps: steps, epochs, minutes, median speed, peak memory, first and last losses."""
    rows = []
    for stage, label in STAGES.items():
        if lines := run.steps(stage):
            dev = [line["dev_loss"] for line in run.dev(stage) if isinstance(line.get("dev_loss"), int | float)]
            speeds = list(values(lines, "tokens_per_second"))
            earlier = run.log[: run.log.index(lines[0])]
            started = max(values(earlier, "time"), default=0.0)  # the clock of the log runs on from stage to stage
            times, epochs = list(values(lines, "time")), list(values(lines, "epoch"))
            memory, losses = list(values(lines, "memory_gib")), list(values(lines, "loss"))
            rows.append(
                {
                    "stage": label,
                    "steps": lines[-1]["step"],
                    "epochs": cell(epochs[-1] if epochs else None, decimal),
                    "minutes": cell((times[-1] - started) / 60 if times else None, decimal),
                    "speed": cell(statistics.median(speeds) if speeds else None, lambda value: f"{value:,.0f}"),
                    "memory": cell(max(memory) if memory else None, decimal),
                    "loss": change(losses),
                    "dev": change(dev),
                }
            )
    return rows


def values(lines: Iterable[dict[str, Any]], key: str) -> Iterable[float]:
    return (line[key] for line in lines if isinstance(line.get(key), int | float))


def change(numbers: list[float]) -> str:
    return f"{numbers[0]:.3f} → {numbers[-1]:.3f}" if numbers else "—"


def first(run: Run, score: Callable[[dict[str, Any]], Any]) -> Any:
    return next((value for scores in run.evaluation.values() if (value := score(scores)) is not None), None)


def cell(value: float | None, show: Callable[[float], str]) -> str:
    return "—" if value is None or not math.isfinite(value) else show(value)


def percent(value: float) -> str:
    return f"{100 * value:.2f} %" if value < 0.01 else f"{100 * value:.1f} %"


def decimal(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def cosine(value: float) -> str:
    return f"{value:.3f}"
