"""The settings of a run: one typed tree, read from YAML, overridden on the command line, saved resolved in the run folder.

Each field is explained where it stands. Unknown keys are refused with the nearest name.
"""

import difflib
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator

from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.errors import UserError
from alignx_fast.fields import AnyPath, Folder, Group, Modules, Words, at_least_one, not_negative, split_words
from alignx_fast.losses.apart import ApartSettings
from alignx_fast.losses.base import LossSettings
from alignx_fast.losses.contrastive import ContrastiveSettings
from alignx_fast.losses.matching import MatchingSettings
from alignx_fast.reading import read_tree
from alignx_fast.stages import Stage

BUILTIN_TINY = "builtin:tiny"
Backend = Literal["tensorboard", "wandb", "trackio"]
SHORT = reprlib.Repr()
"""Quotes a wrong value without filling the screen."""
SHORT.maxlevel, SHORT.maxlist, SHORT.maxdict = 4, 20, 20
SHORT.maxstring = SHORT.maxlong = SHORT.maxother = 200


class LoraSettings(Group):
    """Low-rank adapters, for lora and qlora."""

    rank: int = Field(16, gt=0)
    """Rank of the low-rank update."""
    alpha: float = Field(32.0, gt=0)
    """Scale of the update: alpha / rank, or alpha / sqrt(rank) with `rslora`."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapters' input."""
    target_modules: Modules = "all-linear"
    """Module names that get an adapter; "all-linear" means every linear layer except the head."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps large ranks trainable."""
    dora: bool = False
    """Weight-decomposed adapters (DoRA): a little better at small ranks, slower."""


class ModelSettings(Group):
    """The base model, and what of it is trained."""

    path: AnyPath = BUILTIN_TINY
    """A Hugging Face model name or folder, or `builtin:tiny`: a small Llama with its own tokenizer, built from the training text."""
    tuning: Literal["full", "lora", "qlora"] = "full"
    """What is trained: all weights, adapters, or adapters on 4-bit (NF4) weights."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights; auto is float32 for full fine-tuning, and for adapters bfloat16 where the GPU or the CPU multiplies in it.
    A GPU multiplies in its fastest format whatever the weights are in; a CPU in bfloat16 only with auto or bfloat16 here."""
    attention: Literal["auto", "flash_attn", "varlen", "sdpa"] = "auto"
    """FlashAttention package, FlashAttention inside torch, or torch's own attention; auto takes the first that works here."""
    align_layer: int | None = Field(None, ge=1)
    """Decoder layer whose output is aligned; default: half of the layers."""
    trust_remote_code: bool = False
    """Allow Python code shipped with the model to run. Leave off unless you have read that code."""
    lora: LoraSettings = LoraSettings()
    gradient_checkpointing: Annotated[bool | int, AfterValidator(not_negative)] = False
    """Recompute layers in backward to save memory; a number n > 1 checkpoints every n-th layer."""
    offload_checkpoints: bool = False
    """Keep the checkpointed activations in CPU memory."""
    tiny_layers: int = Field(4, gt=1)
    """Layers of `builtin:tiny`."""
    tiny_width: int = Field(128, gt=0, multiple_of=32)
    """Hidden width of `builtin:tiny`."""
    tiny_vocabulary: int = Field(3000, ge=300)
    """Tokens in the vocabulary of `builtin:tiny`."""

    @model_validator(mode="after")
    def _something_to_offload(self) -> "ModelSettings":
        if self.offload_checkpoints and not self.gradient_checkpointing:
            raise ValueError("offload_checkpoints needs checkpoints to offload: add `--model.gradient_checkpointing true`")
        return self


class ParallelSource(Group):
    """One source of translation pairs."""

    path: AnyPath
    """JSONL, TSV, CSV, Parquet or TMX file (text also .gz, .xz, .zst, .bz2), a folder that `alignx-fast prepare` wrote, `builtin:phrasebook`,
    or a Hugging Face dataset (format: hf)."""
    target_path: AnyPath | None = None
    """The second file of a line-aligned (Moses) pair."""
    format: Literal["auto", "jsonl", "tsv", "csv", "parquet", "tmx", "moses", "prepared", "hf"] = "auto"
    """auto decides by the file's name."""
    src_lang: str | None = None
    """Language of the source side where rows do not say it."""
    tgt_lang: str | None = None
    """Language of the target side where rows do not say it."""
    columns: dict[str, str] = {}
    """Our column name to yours, e.g. {src: english, tgt: german}."""
    subset: str | None = None
    """Configuration name of a Hugging Face dataset."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    max_rows: int | None = Field(None, gt=0)
    """Use at most this many rows, drawn at random."""


class InstructionSource(Group):
    """One source of instructions."""

    path: AnyPath
    """JSONL file (also compressed) with instruction, input, output and optionally lang, a folder that `alignx-fast prepare` wrote,
    `builtin:phrasebook`, or a Hugging Face dataset."""
    format: Literal["auto", "jsonl", "prepared", "hf"] = "auto"
    """auto decides by the file's name."""
    lang: str | None = None
    """Language of the rows where they do not say it."""
    columns: dict[str, str] = {}
    """Our column name to yours."""
    subset: str | None = None
    """Configuration name of a Hugging Face dataset."""
    split: str = "train"
    """Split of a Hugging Face dataset."""
    max_rows: int | None = Field(None, gt=0)
    """Use at most this many rows, drawn at random."""


class DataSettings(Group):
    """Sources, and how rows are made of them."""

    parallel: list[ParallelSource] = [ParallelSource(path="builtin:phrasebook")]
    """Translation pairs: stage 1, and the translation instructions of stage 2."""
    instructions: list[InstructionSource] = [InstructionSource(path="builtin:phrasebook")]
    """General instructions of stage 2."""
    evaluation: AnyPath | None = None
    """Held-out sentences in several languages (JSONL with `texts: {lang: text}`); default: taken from the dev split."""
    languages: Words | None = None
    """Keep only rows whose languages are all in this list; default: all."""
    both_directions: bool = True
    """Train every pair as source to target and as target to source."""
    template: Literal["auto", "alpaca", "chat"] = "auto"
    """Prompt layout; auto is the tokenizer's chat template where it has one, else the Alpaca sections."""
    max_length: int = Field(512, ge=16)
    """Longest sequence in tokens; longer rows are cut on the right."""
    train_on_prompt: bool = True
    """Next-token loss over the prompt too, as in the paper; false trains on the response alone."""
    mixing_temperature: float = Field(1.0, ge=1)
    """Languages are drawn with probability n^(1/T): 1 keeps their shares, larger values lift small languages."""
    dev_pairs: int = Field(500, ge=1)
    """Rows held out as dev set, at most a tenth of the data."""
    translation_share: float = Field(0.5, ge=0, le=1)
    """Share of translation instructions in stage 2; the rest are general instructions."""
    cache_dir: Path = Path("~/.cache/alignx-fast")
    """Where tokenised data is kept between runs."""


class StageSettings(Group):
    """What both stages have in common: length, optimizer, record."""

    epochs: float = Field(2.0, gt=0)
    """Passes over the data; ignored where `max_steps` is set."""
    max_steps: int | None = Field(None, gt=0)
    """Optimizer steps."""
    tokens_per_micro_batch: Annotated[int | Literal["auto"], AfterValidator(at_least_one)] = "auto"
    """Tokens in one forward pass; auto takes what the memory plan allows. Changes speed and memory, and the result only of a loss that is set
    to be taken per micro-batch (`negatives`, `scope`)."""
    learning_rate: float = Field(2e-4, gt=0)
    """Peak learning rate (about 2e-6 for full fine-tuning of a large model, 2e-4 for adapters)."""
    scheduler: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "cosine"
    """Shape of the learning rate after warm-up."""
    warmup_steps: int = Field(100, ge=0)
    """Steps of linear warm-up, at most a tenth of the run."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradient norm above which gradients are scaled down."""
    optimizer: Literal["auto", "adamw", "adamw_8bit", "paged_adamw_8bit"] = "auto"
    """auto: paged 8-bit AdamW for qlora on a GPU, else AdamW."""
    log_every: int = Field(10, gt=0)
    """Steps between lines of the run log."""
    evaluate_every: int | None = Field(None, gt=0)
    """Steps between dev losses; default: a tenth of the run. The dev loss is always taken at start and end."""
    save_every: int | None = Field(None, gt=0)
    """Steps between checkpoints; default: a fifth of the run, and never more than half an hour apart."""
    keep_checkpoints: int = Field(2, gt=0)
    """Checkpoints kept per stage."""
    max_skipped_steps: int | None = Field(None, ge=0)
    """Steps that may be skipped because their loss or gradients are not finite; one more ends the run. Default: one in a hundred of the stage,
    at least 3 and at most 20. Three in a row end it always."""

    @property
    def step_rows(self) -> int:
        """Rows asked for in one optimizer step."""
        raise NotImplementedError

    def optimizer_name(self, tuning: str, *, on_gpu: bool) -> str:
        """As set; `auto` is paged 8-bit AdamW for qlora on a GPU, else AdamW."""
        if self.optimizer != "auto":
            return self.optimizer
        return "paged_adamw_8bit" if tuning == "qlora" and on_gpu else "adamw"

    @property
    def losses(self) -> list[LossSettings]:
        """The losses beside next-token prediction, whatever their weights, in the order of the fields."""
        return [value for name in type(self).model_fields if isinstance(value := getattr(self, name), LossSettings)]

    @property
    def has_losses(self) -> bool:
        """Whether any loss beside next-token prediction has a weight."""
        return any(loss.weight for loss in self.losses)


class AlignSettings(StageSettings):
    """Stage 1, continual pre-training with the alignment losses."""

    pairs_per_step: int = Field(128, gt=1)
    """Translation pairs in one optimizer step: also the number of in-batch negatives."""
    contrastive: ContrastiveSettings = ContrastiveSettings()
    matching: MatchingSettings = MatchingSettings()
    apart: ApartSettings = ApartSettings()
    compare_ntp_only: bool = False
    """Also train a control with L_ntp alone for the same number of steps, and show both."""

    @property
    def step_rows(self) -> int:
        """`pairs_per_step`."""
        return self.pairs_per_step

    def without_losses(self) -> "AlignSettings":
        """A copy that trains with next-token prediction alone."""
        copy = self.model_copy(deep=True)
        for loss in copy.losses:
            loss.weight = 0.0
        return copy


class InstructSettings(StageSettings):
    """Stage 2, instruction tuning."""

    rows_per_step: int = Field(128, gt=0)
    """Rows in one optimizer step."""

    @property
    def step_rows(self) -> int:
        """`rows_per_step`."""
        return self.rows_per_step


class EvaluationSettings(Group):
    """What is scored before and after."""

    enabled: bool = True
    """Evaluate before and after."""
    sentences: int = Field(300, gt=1)
    """Held-out sentences for retrieval, layers and perplexity."""
    languages: Words | None = None
    """Languages to evaluate; default: those trained on, or with sentences of your own all that these have."""
    pivot: str = "en"
    """Translation is scored between this language and each other one, both ways."""
    translation_sentences: int = Field(50, ge=0)
    """Sentences translated per direction; 0 skips translation."""
    translation_directions: Words | None = None
    """Directions such as en-de; default: pivot to each language and back."""
    translation_shots: int = Field(0, ge=0)
    """Translated examples in front of each sentence, from held-out sentences that are not scored; 0 is zero-shot."""
    beams: int = Field(1, gt=0)
    """Hypotheses kept while a translation is generated; 1 is greedy."""
    max_new_tokens: int = Field(128, gt=0)
    """Longest generated translation in tokens."""
    spbleu_tokenizer: Literal["flores200", "flores101"] = "flores200"
    """sacrebleu's tokenizer for spBLEU."""
    spbleu_model: AnyPath | None = None
    """Its SentencePiece file; default: where sacrebleu keeps it. Nothing is downloaded."""
    spbleu_sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    """Digest that this file must have; that of flores200 is known and always checked."""
    comet_model: AnyPath | None = None
    """Checkpoint (.ckpt) of a COMET model, scored by the command comet-score of the package unbabel-comet."""
    tokens_per_batch: int = Field(4096, gt=0)
    """Tokens in one evaluation forward pass."""
    tasks: Words = []
    """Understanding tasks of lm-evaluation-harness, such as xnli_de, or on local files, such as local_xcopa_sw; needs
    `pip install 'alignx-fast[understanding]'`."""
    task_data: Folder | None = None
    """Folder with the files of the local tasks: understanding_xcopa.jsonl and its like, also gzipped."""
    task_folder: Folder | None = None
    """Folder with lm-eval task files of your own, which `tasks` may name too."""
    task_examples: int = Field(200, gt=0)
    """Examples of each task."""
    continuations: int = Field(0, ge=0)
    """Held-out sentences per language that are continued from their first halves, and held-out instructions that are answered; 0 skips both."""


class Settings(Group):
    """Everything a run can be told."""

    name: str = "run"
    """Name of the run, used in titles."""
    output: Folder = Path("runs/run")
    """Run folder: settings, log, checkpoints, evaluation, model and report."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of data order, initialisation and dropout."""
    stages: Annotated[
        list[Stage], BeforeValidator(split_words, json_schema_input_type=list[Stage] | str), Field(min_length=1)
    ] = [
        "align",
        "instruct",
    ]
    """Stages to run, in this order."""
    model: ModelSettings = ModelSettings()
    data: DataSettings = DataSettings()
    corpus: CorpusSettings = CorpusSettings()
    align: AlignSettings = AlignSettings()
    instruct: InstructSettings = InstructSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    tracking: Annotated[list[Backend], BeforeValidator(split_words, json_schema_input_type=list[Backend] | str)] = []
    """Logging backends beside the run log; each must be installed."""

    def stage(self, name: Stage) -> StageSettings:
        """The settings of a stage."""
        return self.align if name == "align" else self.instruct


def load_settings(path: Path | None, overrides: Mapping[str, object] | None = None) -> Settings:
    """Read a YAML file (None: the defaults) and apply dotted overrides such as {"align.pairs_per_step": 256}.

    Raises:
        UserError: the file is missing or not YAML, a key is unknown or stands twice, or a value has the wrong type.
    """
    tree = read_tree(path, Settings) if path is not None else {}
    for dotted, value in (overrides or {}).items():
        set_dotted(tree, dotted, value)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, str(path or "command line"))) from None


def set_dotted(tree: dict[str, object], dotted: str, value: object) -> None:
    """Set `a.b.c` in nested dicts, making groups where there are none."""
    *groups, leaf = dotted.split(".")
    for group in groups:
        inner = tree.get(group)
        if not isinstance(inner, dict):
            inner = {}
            tree[group] = inner
        tree = inner
    tree[leaf] = value


def explain(error: ValidationError, origin: str, group: type[BaseModel] | None = None) -> str:
    """The first problem of a validation error as one sentence; unknown keys get the nearest known name of `group` (default: the settings)."""
    known = known_keys(group or Settings)
    problem = error.errors()[0]
    path = [str(part) for part in problem["loc"]]
    dotted = ".".join(path)
    if problem["type"] == "extra_forbidden":
        near = difflib.get_close_matches(dotted, known, n=1, cutoff=0.5)
        every = (
            "`alignx-fast recipes show quickstart --all` lists every setting."
            if group is None
            else f"Known are {', '.join(known)}."
        )
        hint = f" Did you mean `{near[0]}`?" if near else f" {every}"
        return f"{origin}: unknown setting `{dotted}`.{hint}"
    words = problem["msg"].removeprefix("Value error, ")
    words = words if words.startswith("YAML") else words[0].lower() + words[1:]
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # of a whole group
        return f"{origin}: {words}."
    if dotted not in known and ".".join(path[:-1]) in known and not path[-1].isdigit():
        dotted = ".".join(path[:-1])  # pydantic names the member of a union last
    return f"{origin}: setting `{dotted}` is {SHORT.repr(problem['input'])}: {words}."


def known_keys(group: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted setting name."""
    keys: list[str] = []
    for name, field in group.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += known_keys(field.annotation, f"{prefix}{name}.")
    return keys
