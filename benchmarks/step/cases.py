"""The training steps that are measured, and who takes part in each."""

from dataclasses import dataclass, replace
from typing import Literal

from transformers import AutoConfig, LlamaConfig, PreTrainedConfig

from alignx_fast.config import BUILTIN_TINY, AlignSettings, ContrastiveSettings, InstructSettings, MatchingSettings, ModelSettings
from alignx_fast.memory.shapes import PUBLISHED
from benchmarks.step.names import CACHED, EXPANDED, MICRO, NTP, PADDED, STOCK, TRL
from benchmarks.step.rows import MAX_LENGTH


@dataclass(frozen=True)
class StepCase:
    """One optimizer step over `rows` rows, every row seen once by every contender."""

    name: str
    shape: str
    """A model of `alignx_fast.memory.shapes.PUBLISHED`, "smollm2-135m" or "tiny"."""
    tuning: Literal["full", "lora", "qlora"]
    stage: Literal["align", "instruct"]
    rows: int
    tokens_per_micro_batch: int
    """Of packed contenders."""
    rows_per_micro_batch: int
    """Of padded contenders."""
    checkpointing: bool
    cap_gb: float | None
    """Memory the allocator may use, in 10^9 bytes."""
    contenders: tuple[str, ...]
    dtype: Literal["auto", "float32"] = "auto"
    """Of weights and products, as in the settings."""

    def model_settings(self) -> ModelSettings:
        path = BUILTIN_TINY if self.shape == "tiny" else self.shape
        return ModelSettings(path=path, tuning=self.tuning, dtype=self.dtype, gradient_checkpointing=self.checkpointing)

    def stage_settings(self, contender: str) -> AlignSettings | InstructSettings:
        if self.stage == "instruct":
            return InstructSettings(rows_per_step=self.rows)
        weight = 0.0 if contender in (NTP, STOCK) else 1.0
        return AlignSettings(
            pairs_per_step=self.rows,
            contrastive=ContrastiveSettings(weight=0.15 * weight, negatives="step" if contender == CACHED else "micro_batch"),
            matching=MatchingSettings(weight=0.4 * weight),
        )

    def micro_batch(self, contender: str) -> dict[str, int]:
        """The contender's kind of micro-batch by its field here, and its size."""
        kind = "rows_per_micro_batch" if contender in PADDED else "tokens_per_micro_batch"
        return {kind: getattr(self, kind)}

    def halved(self, contender: str) -> "StepCase | None":
        """With micro-batches half as large, as anyone would try who runs out of memory; None where a row would not fit in any more."""
        ((kind, size),) = self.micro_batch(contender).items()
        smallest = 1 if contender in PADDED else MAX_LENGTH
        return replace(self, **{kind: size // 2}) if size // 2 >= smallest else None


LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
CARD = 24.0
CPU_CASES = [
    StepCase("tiny-full-align-32", "tiny", "full", "align", 32, 1024, 8, False, None, (CACHED, MICRO, NTP, EXPANDED, STOCK)),
    StepCase("tiny-qlora-align-16", "tiny", "qlora", "align", 16, 1024, 8, True, None, (CACHED, EXPANDED, STOCK)),
    StepCase("tiny-lora-instruct-32", "tiny", "lora", "instruct", 32, 1024, 8, False, None, (CACHED, STOCK, TRL)),
    StepCase("135m-lora-bf16-16", "smollm2-135m", "lora", "align", 16, 2048, 8, False, None, (NTP, STOCK)),
    StepCase("135m-lora-fp32-16", "smollm2-135m", "lora", "align", 16, 2048, 8, False, None, (NTP, STOCK), "float32"),
    StepCase("135m-full-bf16-16", "smollm2-135m", "full", "align", 16, 2048, 8, False, None, (NTP, STOCK)),
    StepCase("135m-full-fp32-16", "smollm2-135m", "full", "align", 16, 2048, 8, False, None, (NTP, STOCK), "float32"),
]
GPU_CASES = [
    StepCase("8b-qlora-align-1024", LLAMA, "qlora", "align", 1024, 4096, 16, True, CARD, (CACHED, MICRO, NTP)),
    StepCase("8b-qlora-align-128", LLAMA, "qlora", "align", 128, 2048, 16, True, None, (CACHED, MICRO, EXPANDED, STOCK)),
    StepCase("8b-qlora-instruct-128", LLAMA, "qlora", "instruct", 128, 4096, 16, True, CARD, (CACHED, STOCK, TRL)),
    StepCase("8b-lora-align-1024", LLAMA, "lora", "align", 1024, 8192, 16, False, None, (CACHED, NTP)),
    StepCase("8b-qlora-align-4096", LLAMA, "qlora", "align", 4096, 4096, 16, True, CARD, (CACHED,)),
]


def config_of(case: StepCase) -> PreTrainedConfig:
    """The architecture, by its published figures."""
    if case.shape == "tiny":
        return LlamaConfig(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=192,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
        )
    if case.shape == "smollm2-135m":
        return LlamaConfig(
            vocab_size=49152,
            hidden_size=576,
            intermediate_size=1536,
            num_hidden_layers=30,
            num_attention_heads=9,
            num_key_value_heads=3,
            tie_word_embeddings=True,
        )
    values = dict(PUBLISHED[case.shape])
    return AutoConfig.for_model(values.pop("model_type"), **values)
