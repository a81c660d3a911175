"""A sentence encoder of three thousand weights, made here, and the sentences that the tests give it."""

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import modules
from transformers import BertConfig, BertModel, BertTokenizerFast

# Short strings, as in the library's own tests of these losses; five rows, so that mini-batches of two do not divide them.
COLUMNS = [
    ["aaa", "bbb", "ccc", "ddd", "eee"],
    ["aas", "bbs", "ccs", "dds", "ees"],
    ["xxx", "yyy", "zzz", "kkk", "fff"],
]


def tiny_encoder(folder, dropout=0.0):
    """BERT over single letters, its tokens averaged: 16 dimensions."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = "abcdefghijklmnopqrstuvwxyz"
    vocabulary += [*letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    BertModel(config).save_pretrained(folder)
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    transformer = modules.Transformer(str(folder))
    return SentenceTransformer(modules=[transformer, modules.Pooling(16, pooling_mode="mean")], device="cpu")
