"""spBLEU's file is found, checked and never downloaded."""

import hashlib
from pathlib import Path

import pytest
import sentencepiece

from alignx_fast.config import EvaluationSettings
from alignx_fast.errors import UserError
from alignx_fast.evaluation import spbleu


def settings(**values: object) -> EvaluationSettings:
    return EvaluationSettings.model_validate(values)


def test_a_named_file_is_recorded_and_checked_against_a_given_digest(pieces: Path) -> None:
    digest = hashlib.sha256(pieces.read_bytes()).hexdigest()
    tokenizer = spbleu.find_spbleu(settings(spbleu_tokenizer="flores101", spbleu_model=str(pieces)))
    assert tokenizer is not None
    assert (tokenizer.name, tokenizer.sha256, tokenizer.verified) == ("flores101", digest, False)
    assert tokenizer("Guten Tag.") == " ".join(
        sentencepiece.SentencePieceProcessor(model_file=str(pieces)).encode("Guten Tag.", out_type=str)
    )
    given = settings(spbleu_tokenizer="flores101", spbleu_model=str(pieces), spbleu_sha256=digest)
    tokenizer = spbleu.find_spbleu(given)
    assert tokenizer is not None
    assert tokenizer.verified
    wrong = settings(spbleu_tokenizer="flores101", spbleu_model=str(pieces), spbleu_sha256="0" * 64)
    with pytest.raises(UserError, match=rf"has sha256 {digest}, not 0000.*evaluation\.spbleu_sha256.*get the file again"):
        spbleu.find_spbleu(wrong)


def test_another_file_is_not_taken_for_flores200(pieces: Path) -> None:
    digest = hashlib.sha256(pieces.read_bytes()).hexdigest()
    for values in ({}, {"spbleu_sha256": digest}):
        with pytest.raises(UserError, match=r"not 14bb8dfb.*published of sacrebleu's flores200 model"):
            spbleu.find_spbleu(settings(spbleu_model=str(pieces), **values))


def test_the_published_digest_is_accepted(pieces: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(spbleu.PUBLISHED_SHA256, "flores200", hashlib.sha256(pieces.read_bytes()).hexdigest())
    tokenizer = spbleu.find_spbleu(settings(spbleu_model=str(pieces)))
    assert tokenizer is not None
    assert (tokenizer.signature(), tokenizer.verified) == ("flores200", True)


def test_a_file_is_found_where_sacrebleu_keeps_it(pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spbleu, "SACREBLEU_DIR", str(tmp_path))
    chosen = settings(spbleu_tokenizer="flores101")
    assert spbleu.find_spbleu(chosen) is None
    assert "flores101" in spbleu.missing_note(chosen)
    assert "Compare chrF++ instead" in spbleu.missing_note(chosen)
    kept = spbleu.default_file("flores101")
    assert kept == tmp_path / "models" / "sacrebleu_tokenizer_spm.model"
    kept.parent.mkdir()
    kept.write_bytes(pieces.read_bytes())
    assert spbleu.find_spbleu(chosen) is not None
    spbleu.default_file("flores200").write_bytes(b"<html>Forbidden</html>")
    with pytest.raises(UserError, match="flores200sacrebleuspm has sha256"):
        spbleu.find_spbleu(settings())


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*missing\.model.*evaluation\.spbleu_model"):
        spbleu.find_spbleu(settings(spbleu_model=str(tmp_path / "missing.model")))
    (tmp_path / "text.model").write_text("not a model")
    with pytest.raises(UserError, match=r"text\.model is no SentencePiece model"):
        spbleu.find_spbleu(settings(spbleu_tokenizer="flores101", spbleu_model=str(tmp_path / "text.model")))
