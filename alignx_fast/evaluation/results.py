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
    """Retrieval from one language to another. Intervals are bootstrapped over sentences."""

    top1: float
    """Share of sentences (0 to 1) whose translation is the most similar sentence of the other language."""
    top1_interval: Interval | None = None
    xsim: float | None = None
    """Error rate (0 to 1, less is better) of search by ratio margin over 4 neighbours: Artetxe and Schwenk 2019, LASER's xsim."""
    xsim_interval: Interval | None = None
    xsimpp: float | None = None
    """xsim among hard negatives too, made from the sentences of an English target by rule; None for other targets. After Chen et al. 2023."""
    xsimpp_interval: Interval | None = None
    xsimpp_by_kind: dict[str, float] = {}
    """Share of sentences for which xsim++ picked a hard negative, by what was changed in it."""
    n: int | None = None
    """Sentences that both languages have."""


class MexaScore(Scores):
    """MEXA of one language: how far its sentences are aligned with the pivot's (Kargaran et al. 2024), on mean-pooled vectors.

    At one layer: share of sentences that are nearer to their translation than any other sentence is to either of the two.
    """

    mean: float
    """Over all layers, from the embeddings on."""
    mean_interval: Interval | None = None
    max: float
    """At the best layer."""
    max_interval: Interval | None = None
    """At that layer; that it was chosen as the best is not allowed for."""
    best_layer: int
    n: int
    """Sentences that both languages have; the score falls as they become more."""


class Retrieval(Scores):
    """Retrieval of translations at the align layer; the averages are None where no two languages share two meanings.

    The intervals of averages draw the same sentences in all pairs.
    """

    chance: float | None = None
    """What guessing scores: the mean of 1/n over the pairs."""
    average: float | None = None
    """Top-1."""
    average_interval: Interval | None = None
    xsim: float | None = None
    """Mean error rate over the pairs."""
    xsim_interval: Interval | None = None
    xsimpp: float | None = None
    """Mean error rate over the pairs whose target is English; None without English."""
    xsimpp_interval: Interval | None = None
    hard_negatives: dict[str, int] = {}
    """Hard negatives of xsim++, by what was changed: causality (negation or antonym), entity or number."""
    pairs: dict[str, PairRetrieval] = {}
    """By direction of the search, such as "de-en"."""
    pivot: str | None = None
    """Language that `mexa` compares with."""
    mexa: dict[str, MexaScore] = {}
    """By language, over all layers; empty without sentences in the pivot."""


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


class LanguageProbe(Scores):
    """How well a linear classifier tells the languages apart by the sentence vectors of one layer: 5-fold cross-validation over meanings."""

    layer: int
    accuracy: float
    """Share of sentences (0 to 1) whose language it names, among meanings that it was not trained on."""
    interval: Interval | None = None
    chance: float
    """Share of the most frequent language."""
    n: int
    """Sentence vectors."""


class LayerScores(Scores):
    """Means over all pairs of languages, one value for every layer from the embeddings on; None where there is no pair.

    The intervals are bootstrapped over sentences, the same ones in all pairs.
    """

    similarity: tuple[float | None, ...] = ()
    """Cosine of translations."""
    unrelated: tuple[float | None, ...] = ()
    """Cosine of sentences that have nothing to do with each other."""
    cka: tuple[float | None, ...] = ()
    """Linear centred kernel alignment, 0 to 1."""
    retrieval: tuple[float | None, ...] = ()
    """Top-1 accuracy, 0 to 1."""
    retrieval_interval: tuple[Interval | None, ...] = ()
    retrieval_centred: tuple[float | None, ...] = ()
    """The same once the mean of each language's vectors, over the sentences that are scored, is taken away: without what all sentences of a language
    have in common."""
    retrieval_centred_interval: tuple[Interval | None, ...] = ()
    xsim: tuple[float | None, ...] = ()
    """Error rate of margin-based search, 0 to 1."""
    xsim_interval: tuple[Interval | None, ...] = ()
    xsimpp: tuple[float | None, ...] = ()
    """The same with hard negatives, over the pairs whose target is English."""
    xsimpp_interval: tuple[Interval | None, ...] = ()
    mexa: tuple[float | None, ...] = ()
    """Mean over all languages but the pivot; see `MexaScore`."""
    mexa_interval: tuple[Interval | None, ...] = ()
    same_language: tuple[float | None, ...] = ()
    """Anisotropy: cosine of two different sentences of one language, mean over the languages."""
    first_component: tuple[float | None, ...] = ()
    """Anisotropy: share of the variance along the first principal component of one language's vectors, mean over the languages."""
    probes: tuple[LanguageProbe, ...] = ()
    """At the align layer and the last three layers."""
    n: int | None = None
    """Meanings that two languages have."""


class LanguagePerplexity(Scores):
    """How well the model predicts one language, given the opening token; both values are None for a model that has diverged."""

    perplexity: float | None = None
    """Per token."""
    bits_per_character: float | None = None
    """Comparable between models with different tokenizers."""
    bits_per_character_interval: Interval | None = None
    """Bootstrapped over sentences."""
    tokens: int | None = None
    n: int | None = None
    """Sentences."""


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
    interval: Interval | None = None
    """Around `score`, over examples."""
    n: int | None = None
    """Examples answered."""


class GeneratedText(Scores):
    """What a model said after a prompt, and how the data goes on."""

    prompt: str
    reference: str
    text: str


class MonolingualScore(Scores):
    """Texts that a model generated in one language after prompts in that language."""

    n: int
    """Texts generated."""
    right_language: float | None = None
    """Share of texts (0 to 1) in the language of their prompt; None where that cannot be told."""
    right_language_interval: Interval | None = None
    repetition: float | None = None
    """Share of 4-grams (0 to 1) that stood in the same text before, mean over texts."""
    repetition_interval: Interval | None = None
    chrf: float | None = None
    """chrF against how the data goes on, 0 to 100, mean over texts."""
    chrf_interval: Interval | None = None
    chrf_chance: float | None = None
    """The same score of another prompt's reference: fluent, in the right language, and wrong."""
    unfinished: float | None = None
    """Share of texts (0 to 1) that had not ended at the longest length."""
    examples: tuple[GeneratedText, ...] = ()


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
    opening_token: str = ""
    """Token behind which every sentence was encoded for retrieval, layers, map and perplexity; it is never pooled."""
    retrieval: Retrieval = Retrieval()
    map: SentenceMap = SentenceMap()
    layers: LayerScores = LayerScores()
    perplexity: dict[str, LanguagePerplexity] = {}
    """By language."""
    translation: dict[str, DirectionTranslation] = {}
    """By direction, such as "en-de"."""
    understanding: dict[str, TaskScore] = {}
    """By task."""
    continuations: dict[str, MonolingualScore] = {}
    """By language: held-out sentences continued from their first halves."""
    answers: dict[str, MonolingualScore] = {}
    """By language: held-out instructions answered."""
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
