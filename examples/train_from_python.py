"""Stage 1 from Python: a tiny model, the phrasebook, and `AlignXTrainer`, which is a `transformers.Trainer`.

    python examples/train_from_python.py [FOLDER]

takes less than a minute on two CPU cores and leaves a Hugging Face model in FOLDER/model (default: runs/from_python).
"""

import sys
from pathlib import Path

from transformers import TrainingArguments

from alignx_fast.config import load_settings
from alignx_fast.data.phrasebook import load_phrasebook
from alignx_fast.data.prepare import prepare
from alignx_fast.models.tiny import save_tiny_model
from alignx_fast.models.tokenizer import load_tokenizer
from alignx_fast.models.weights import load_model
from alignx_fast.training.trainer import AlignXTrainer

STEPS = 30


def main(folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Train and save; returns the dev losses before and after."""
    settings = load_settings(
        None,
        {
            "model.tiny_width": 64,
            "model.tiny_vocabulary": 1000,
            "data.languages": "en,de,sw",
            "data.parallel": [{"path": "builtin:phrasebook", "max_rows": 1000}],
            "data.dev_pairs": 64,
            "align.pairs_per_step": 32,
            "align.contrastive.weight": 0.3,
        },
    )

    # A model and its tokenizer. With a model of your own, leave these lines out and name it in place of `base`.
    base = str(folder / "base")
    texts = (text for meaning in load_phrasebook().train for text in meaning.texts.values())
    save_tiny_model(texts, settings.model, settings.seed, Path(base))

    tokenizer = load_tokenizer(base, settings.model)
    model = load_model(base, settings.model)
    data = prepare(settings, tokenizer, "align")  # reads, cleans, splits and tokenises
    trainer = AlignXTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=STEPS,
            learning_rate=3e-3,
            warmup_steps=5,
            logging_steps=10,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=True,
        ),
        settings=settings.align,
        train_dataset=data.train,
        eval_dataset=data.dev,
        align_layer=2,
        tokens_per_micro_batch=2048,
        processing_class=tokenizer,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    trainer.save_model(str(folder / "model"))
    for name in after:
        print(f"{name}: {before[name]:.3f} -> {after[name]:.3f}")
    return before, after


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/from_python"))
