"""The ten lines of the package's README run as they stand."""

import re
from pathlib import Path

README = Path(__file__).parents[3] / "kernels" / "README.md"


def test_the_ten_lines_run():
    (code,) = re.findall(r"## Ten lines of use\n\n```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.splitlines()) == 11
    names = {}
    exec(code, names)
    assert names["hidden"].grad.abs().sum() > 0
