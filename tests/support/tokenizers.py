"""Tiny fast tokenizers of the three kinds that models come with, trained in a moment on the sentences below."""

import functools
import json

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

SENTENCES = {
    "en": ["The train leaves at seven.", "Where is the library, please?", "We drink tea in the garden.", "It is raining!"],
    "de": ["Der Zug fährt um sieben Uhr ab.", "Wo ist bitte die Bücherei?", "Wir trinken Tee im Garten.", "Es regnet!"],
    "sw": ["Treni linaondoka saa moja.", "Maktaba iko wapi, tafadhali?", "Tunakunywa chai bustanini.", "Mvua inanyesha!"],
    "ru": ["Поезд отправляется в семь часов.", "Где здесь библиотека?", "Мы пьём чай в саду.", "Идёт дождь!"],
    "hi": ["ट्रेन सात बजे छूटती है।", "पुस्तकालय कहाँ है?", "हम बगीचे में चाय पीते हैं।", "बारिश हो रही है!"],
    "zh": ["火车七点出发。", "请问图书馆在哪里？", "我们在花园里喝茶。", "下雨了！"],
}
"""The same four sentences in six languages and four scripts."""

KINDS = ("byte_bpe", "metaspace", "wordpiece")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A chat template with end-of-turn tokens; needs a tokenizer built with `chat_template=CHATML`."""


def build_tokenizer(kind: str = "byte_bpe", *, chat_template: str | None = None, bos: bool = True) -> PreTrainedTokenizerFast:
    """A new tokenizer: byte-level BPE (<s>, </s>), Metaspace Unigram with byte fallback (<s>, </s>) or WordPiece ([CLS], [SEP]).

    `bos` off leaves out the token that the first two put before a text. pad is eos, as in many published tokenizers.
    """
    core = Tokenizer.from_str(_trained(kind))
    if kind == "wordpiece":
        names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "eos_token": "[SEP]", "pad_token": "[SEP]", "unk_token": "[UNK]"}
    else:
        names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"} | (
            {"unk_token": "<unk>"} if kind == "metaspace" else {}
        )
        if bos:
            core.post_processor = processors.TemplateProcessing(
                single="<s> $A", special_tokens=[("<s>", core.token_to_id("<s>"))]
            )
    extra = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]} if chat_template else {}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, **names, **extra)
    tokenizer.chat_template = chat_template
    return tokenizer


@functools.cache
def _trained(kind: str) -> str:
    text = [sentence for group in SENTENCES.values() for sentence in group] + [
        "### Instruction:\n\n### Input:\n\n### Response:\n",
        ".\n\n" * 20,
    ]
    if kind == "byte_bpe":
        core = Tokenizer(models.BPE())
        core.pre_tokenizer = pre_tokenizers.Sequence(
            [
                # As in GPT-4 and Llama 3: punctuation takes the line breaks after it along.
                pre_tokenizers.Split(Regex(r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*| ?[\p{L}\p{M}]+|\s+"), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
        core.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=500,
            special_tokens=["<s>", "</s>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
    elif kind == "metaspace":
        core = Tokenizer(models.Unigram())
        core.pre_tokenizer = pre_tokenizers.Metaspace()
        core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
        bytes_ = [f"<0x{b:02X}>" for b in range(256)]
        trainer = trainers.UnigramTrainer(
            vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *bytes_], unk_token="<unk>", show_progress=False
        )
    else:
        core = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        core.normalizer = normalizers.BertNormalizer(lowercase=False)
        core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        core.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False)
    core.train_from_iterator(text, trainer)
    if kind == "metaspace":
        core = _with_byte_fallback(core)
    if kind == "wordpiece":
        cls, sep = core.token_to_id("[CLS]"), core.token_to_id("[SEP]")
        core.post_processor = processors.BertProcessing(("[SEP]", sep), ("[CLS]", cls))
    return core.to_str()


def _with_byte_fallback(core: Tokenizer) -> Tokenizer:
    """The trainer cannot set the flag: bytes become ordinary tokens, read where no piece fits."""
    tree = json.loads(core.to_str())
    tree["model"]["byte_fallback"] = True
    tree["added_tokens"] = [token for token in tree["added_tokens"] if not token["content"].startswith("<0x")]
    return Tokenizer.from_str(json.dumps(tree))
