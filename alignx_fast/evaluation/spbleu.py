"""spBLEU: BLEU over the pieces of a FLORES SentencePiece model, whose file is checked and never downloaded."""

import hashlib
from pathlib import Path

from sacrebleu import BLEU
from sacrebleu.tokenizers.tokenizer_spm import SPM_MODELS, TokenizerSPM
from sacrebleu.utils import SACREBLEU_DIR
from sentencepiece import SentencePieceProcessor

from alignx_fast.config import EvaluationSettings
from alignx_fast.errors import UserError

PUBLISHED_SHA256 = {"flores200": "14bb8dfb35c0ffdea7bc01e56cea38b9e3d5efcdcb9c251d6b40538e1aab555a"}
"""Digest of sacrebleu's flores200 file, which is also that of `sentencepiece.bpe.model` in facebook/nllb-200-distilled-600M.

None is published for the flores101 file: it is checked against `evaluation.spbleu_sha256` where that is given, else recorded, not verified.
"""


class PieceTokenizer(TokenizerSPM):
    """sacrebleu's tokenizer over a local file, where sacrebleu itself would download a missing one.

    Raises:
        UserError: the file is no SentencePiece model.
    """

    def __init__(self, name: str, path: Path, sha256: str, *, verified: bool) -> None:
        self.name, self.sha256, self.verified = name, sha256, verified
        try:
            self.sp = SentencePieceProcessor(model_file=str(path))
        except (OSError, RuntimeError):
            raise UserError(
                f"{path} is no SentencePiece model: name sacrebleu's {name} file with evaluation.spbleu_model."
            ) from None


class SpBleu(BLEU):
    """BLEU whose tokens are the pieces of a SentencePiece model (Goyal et al. 2022, section 5)."""

    def __init__(self, tokenizer: PieceTokenizer) -> None:
        super().__init__(tokenize="none")
        self.tokenizer = tokenizer
        self.tokenizer_signature = tokenizer.name


def default_file(name: str) -> Path:
    """Where sacrebleu keeps the SentencePiece model of one of its tokenizers."""
    return Path(SACREBLEU_DIR) / "models" / Path(SPM_MODELS[name]["url"]).name


def find_spbleu(settings: EvaluationSettings) -> PieceTokenizer | None:
    """The tokenizer of spBLEU from the file that the settings name, else from where sacrebleu keeps it; None where that is missing.

    Raises:
        UserError: a file that was named is missing, or its digest is not the published or the given one.
    """
    name = settings.spbleu_tokenizer
    path = default_file(name) if settings.spbleu_model is None else Path(settings.spbleu_model)
    if not path.is_file():
        if settings.spbleu_model is None:
            return None
        raise UserError(f"There is no file {path}: name sacrebleu's {name} SentencePiece model with evaluation.spbleu_model.")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    known = {
        f"published of sacrebleu's {name} model": PUBLISHED_SHA256.get(name),
        "given by evaluation.spbleu_sha256": settings.spbleu_sha256,
    }
    for meaning, expected in known.items():
        if expected is not None and sha256 != expected:
            raise UserError(
                f"{path} has sha256 {sha256}, not {expected}, which is the one {meaning}: "
                "get the file again, or name another with evaluation.spbleu_model and evaluation.spbleu_tokenizer."
            )
    return PieceTokenizer(name, path, sha256, verified=any(known.values()))


def missing_note(settings: EvaluationSettings) -> str:
    """What a reader must know where there is no spBLEU."""
    name = settings.spbleu_tokenizer
    return (
        f"No spBLEU: sacrebleu's {name} SentencePiece model is not at {default_file(name)}, and nothing is downloaded. "
        "Compare chrF++ instead, or name the file with evaluation.spbleu_model."
    )
