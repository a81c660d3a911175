"""`alignx-fast study`: variants times seeds, trained, scored and compared."""

from pathlib import Path

from alignx_fast.study.run import run_study
from alignx_fast.study.spec import load_study


def study(file: Path, overrides: dict[str, object], *, output: Path | None, jobs: int, smoke: bool) -> bool:
    """Run a study, or go on with one; whether nothing failed."""
    return not run_study(load_study(file, overrides, output=output, smoke=smoke), jobs)
