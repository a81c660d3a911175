"""Shares of a corpus that several machines prepare, each its own, and one puts together."""

from pathlib import Path

from tests.corpora.conftest import Prepare, Result, distinct, pair, write_jsonl


def said(result: Result) -> list[tuple[object, ...]]:
    return sorted(tuple(str(row[name]) for name in ("src_lang", "tgt_lang", "src", "tgt")) for row in result.rows)


def meanings(result: Result) -> set[frozenset[str]]:
    groups: dict[object, set[str]] = {}
    for row in result.rows:
        groups.setdefault(row["meaning"], set()).add(f"{row['src']} {row['tgt']}")
    return {frozenset(group) for group in groups.values()}


def test_shares_put_together_are_what_one_run_makes(prepared: Prepare, tmp_path: Path) -> None:
    rows = distinct(40)
    first = [
        *rows[:20],
        pair("In share one, 1984.", "In Teil eins, 1973."),
        pair("Hello there.", "Bonjour à tous.", tgt_lang="fr"),
    ]
    second = [
        *rows[20:],
        pair(str(rows[3]["src"]).upper(), str(rows[3]["tgt"])),
        pair("Hello there.", "Hallo zusammen."),
        rows[30],
    ]
    shares = [{"path": str(write_jsonl(tmp_path / f"{name}.jsonl", own))} for name, own in (("first", first), ("second", second))]
    test_sets = [{"path": str(write_jsonl(tmp_path / "test.jsonl", [pair(str(rows[25]["src"]), "Andere Worte.")]))}]
    whole = prepared(sources=shares, test_sets=test_sets, out="whole")
    apart = [prepared(sources=[share], test_sets=test_sets, out=f"share-{i}") for i, share in enumerate(shares)]
    merged = prepared(sources=[{"path": str(share.folder)} for share in apart], test_sets=test_sets, out="merged")
    assert said(merged) == said(whole)
    assert meanings(merged) == meanings(whole)
    counts = [result.dropped for result in (*apart, merged)]
    assert {reason: sum(count.get(reason, 0) for count in counts) for reason in whole.dropped} == whole.dropped
