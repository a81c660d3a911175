"""The scores of one model as typed objects, and as JSON on disk.

Imports no torch and no transformers, so that whoever reads scores need not load them.
"""

from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, model_validator


class EvaluatedAt(StrEnum):
    """The point of a run at which a model is evaluated: the name of its file under evaluation/, in the order of the run."""

    BEFORE = "before"
    """The model that the run starts from."""
    NTP_ONLY = "ntp_only"
    """The control of stage 1, trained with next-token prediction alone."""
    AFTER_ALIGN = "after_align"
    """The model after stage 1, where a second stage follows."""
    AFTER = "after"
    """The final model."""
    NOW = "now"
    """A model that is evaluated apart from any run."""


RUN_POINTS = tuple(at for at in EvaluatedAt if at is not EvaluatedAt.NOW)
"""The points of a run, in order."""


class Scores(BaseModel):
    """Base of all parts: cannot be changed; files of older versions may lack fields, hold null for them, or have further ones."""

    model_config = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, validate_by_alias=True, serialize_by_alias=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_missing(cls, fields: object) -> object:
        if not isinstance(fields, dict):
            return fields
        return {name: value for name, value in fields.items() if value is not None}


class Interval(Scores):
    """95 % interval around a score, in the score's own unit."""

    low: float
    high: float


class PairRetrieval(Scores):
    """Retrieval from one language to another."""

    top1: float
    """Share of sentences (0 to 1) whose translation is the most similar sentence of the other language."""
    n: int | None = None
    """Sentences that both languages have."""


class Retrieval(Scores):
    """Retrieval of translations at the align layer; the averages are None where no two languages share two meanings."""

    chance: float | None = None
    """What guessing scores: the mean of 1/n over the pairs."""
    average: float | None = None
    pairs: dict[str, PairRetrieval] = {}
    """By direction of the search, such as "de-en"."""


class MapPoint(Scores):
    """One sentence on the map."""

    x: float
    y: float
    lang: str
    id: str = ""
    """The meaning, equal for translations."""


class SentenceMap(Scores):
    """Sentence vectors on their first two principal axes."""

    layer: int | None = None
    explained: tuple[float, ...] = ()
    """Share of the variance along each axis."""
    points: tuple[MapPoint, ...] = ()


class LayerScores(Scores):
    """Means over all pairs of languages, one value for every layer from the embeddings on; None where there is no pair."""

    similarity: tuple[float | None, ...] = ()
    """Cosine of translations."""
    unrelated: tuple[float | None, ...] = ()
    """Cosine of sentences that have nothing to do with each other."""
    cka: tuple[float | None, ...] = ()
    """Linear centred kernel alignment, 0 to 1."""
    retrieval: tuple[float | None, ...] = ()
    """Top-1 accuracy, 0 to 1."""


class LanguagePerplexity(Scores):
    """How well the model predicts one language; both values are None for a model that has diverged."""

    perplexity: float | None = None
    """Per token."""
    bits_per_character: float | None = None
    """Comparable between models with different tokenizers."""
    tokens: int | None = None


class TextScores(Scores):
    """Corpus scores by sacrebleu from 0 to 100, more is better unless said otherwise."""

    bleu: float
    chrf: float = Field(alias="chrf++")
    """chrF++."""
    spbleu: float | None = None
    """BLEU over the pieces of a FLORES SentencePiece model; None where its file is missing."""
    ter: float | None = None
    """Translation edit rate in edits per 100 words of the reference, less is better; None for languages that write no words apart."""


class TranslatedSentence(Scores):
    """One held-out sentence with its reference and the model's translation."""

    source: str
    reference: str
    hypothesis: str


class DirectionTranslation(TextScores):
    """Translation in one direction; intervals are by sacrebleu's bootstrap over sentences."""

    bleu_interval: Interval | None = None
    chrf_interval: Interval | None = None
    spbleu_interval: Interval | None = None
    ter_interval: Interval | None = None
    comet: float | None = None
    """Mean of the sentences' COMET scores, in the unit of its checkpoint (about 0 to 1), more is better."""
    comet_interval: Interval | None = None
    chance: TextScores | None = None
    """Scores of answering with another sentence's reference: fluent, in the right language, and wrong."""
    n: int | None = None
    """Sentences translated."""
    tokenizer: str = ""
    """sacrebleu's tokenizer for BLEU."""
    signature: str = ""
    """sacrebleu's signatures of all scores, the digest of spBLEU's file and the name of COMET's checkpoint."""
    shots: int = 0
    """Translated examples in front of each sentence."""
    beams: int = 1
    """Hypotheses kept while generating; 1 is greedy."""
    unfinished: float | None = None
    """Share of translations that did not end within the longest length."""
    off_target: float | None = None
    """Share of translations in another language than asked for; None where that cannot be told."""
    examples: tuple[TranslatedSentence, ...] = ()


class PairedDifference(Scores):
    """A model against a baseline on the same sentences, by one metric."""

    metric: str
    """BLEU, chrF++, TER or spBLEU."""
    baseline: float
    """The baseline's score."""
    score: float
    """The model's score."""
    difference: float
    """The model's score minus the baseline's."""
    p_value: float
    """How often a difference as large arises by chance between two equal models."""
    method: str
    n: int
    """Sentences."""
    signature: str = ""
    """sacrebleu's, with the seed and the number of trials."""


class TaskScore(Scores):
    """Score of one understanding task."""

    metric: str = ""
    score: float
    """0 to 1."""
    stderr: float | None = None
    """Standard error of `score`."""
    n: int | None = None
    """Examples answered."""


class Evaluation(Scores):
    """All scores of one model. Parts that were not scored are empty."""

    evaluated_at: EvaluatedAt = Field(EvaluatedAt.NOW, alias="when")
    model: str = ""
    """Folder or hub name."""
    align_layer: int | None = None
    """Layer of `retrieval` and `map`."""
    num_layers: int | None = None
    languages: tuple[str, ...] = ()
    sentences: int | None = None
    """Held-out meanings that were used."""
    retrieval: Retrieval = Retrieval()
    map: SentenceMap = SentenceMap()
    layers: LayerScores = LayerScores()
    perplexity: dict[str, LanguagePerplexity] = {}
    """By language."""
    translation: dict[str, DirectionTranslation] = {}
    """By direction, such as "en-de"."""
    understanding: dict[str, TaskScore] = {}
    """By task."""
    notes: tuple[str, ...] = ()
    """What a reader must know before believing the scores."""
    seconds: float | None = None

    def to_json(self) -> dict[str, object]:
        """The JSON object that `from_json` reads."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, value: object) -> "Evaluation":
        """The evaluation that a JSON object describes; parts that it lacks are empty.

        Raises:
            ValueError: `value` is no JSON object of this form.
        """
        return cls.model_validate(value)
