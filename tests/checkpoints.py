"""Tiny random checkpoints of the transformers classes, written as save_pretrained writes them."""

from pathlib import Path

import transformers

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "keys", "to", "old", "cabinet", "##s", "<", ">", "script"]


def save_tokenizer(directory: Path, **options):
    (directory / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizerFast(vocab_file=str(directory / "vocab.txt"), **options)
    tokenizer.save_pretrained(directory)
    return tokenizer


def bert_config(**options):
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    return transformers.BertConfig(vocab_size=len(WORDS), max_position_embeddings=24, **{**sizes, **options})


def save_bert(directory: Path, name: str = "FlaxBertForSequenceClassification", *, tokenizer: bool = True, **options):
    """Save a random model of class `name`; its config names the architecture as PyTorch users do."""
    model = getattr(transformers, name)(bert_config(**options))
    model.config.architectures = [name.removeprefix("Flax")]
    model.save_pretrained(directory)
    if tokenizer:
        save_tokenizer(directory, model_max_length=24)
    return model
