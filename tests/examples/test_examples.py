"""The examples run as they stand, and show what they say."""

from pathlib import Path

import pytest

from examples import kernels_in_a_plain_loop, train_from_python


def test_kernels_in_a_plain_loop() -> None:
    before, after = kernels_in_a_plain_loop.main()
    assert before < 0.02
    assert after > 0.9


def test_train_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # the cache of tokenised data
    before, after = train_from_python.main(tmp_path / "run")
    assert after["eval_loss_ntp"] < 0.85 * before["eval_loss_ntp"]
    assert after["eval_loss_contrastive"] < 0.5 * before["eval_loss_contrastive"]
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert "eval_loss_ntp: " in capsys.readouterr().out


def test_custom_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from examples import custom_loss

    monkeypatch.setenv("HOME", str(tmp_path))
    losses = custom_loss.main(tmp_path / "run")
    assert losses[-1] < losses[0] - 1
    assert "alignment and uniformity" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
