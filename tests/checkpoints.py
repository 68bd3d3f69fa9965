"""Tiny random checkpoints of the transformers classes, written as save_pretrained writes them."""

from pathlib import Path

import tiny_models
import tokenizers
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


def save(directory: Path, name: str, head: str | None = None, **options):
    """Save the tiny model `name` of `tiny_models`, with the head that generates if it has one, and what reads its input."""
    model = tiny_models.build(name, head or tiny_models.WITH_GENERATION.get(name, "Model"), **options)
    model.save_pretrained(directory)
    if name == "Whisper":
        transformers.WhisperFeatureExtractor(feature_size=8, chunk_length=1).save_pretrained(directory)
    elif name in tiny_models.DECODERS:
        byte_pairs().save_pretrained(directory)
    else:
        words().save_pretrained(directory)
    return model


def byte_pairs():
    """A tokenizer like those of GPT-2 and Llama: byte-level pairs, small letters only."""
    pairs = ["t h", "th e", "Ġ the", "k e", "ke y", "Ġ key", "Ġkey s", "Ġ c", "o l"]
    letters = ["Ġ", *"abcdefghijklmnopqrstuvwxyz", "."]
    tokens = ["<pad>", "<s>", "</s>", "<unk>", *letters, *(pair.replace(" ", "") for pair in pairs)]
    model = tokenizers.models.BPE(
        {token: i for i, token in enumerate(tokens)}, [tuple(pair.split()) for pair in pairs], unk_token="<unk>"
    )
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    return _fast(tokenizer)


def words():
    """A tokenizer of whole words that ends each text, as those of encoder-decoders do."""
    tokens = [
        "<pad>",
        "<s>",
        "</s>",
        "<unk>",
        *["the", "a", "key", "keys", "to", "old", "cabinet", "is", "are", "on", "off", ".", ","],
    ]
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>")
    )
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    return _fast(tokenizer)


def _fast(tokenizer):
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        model_max_length=tiny_models.POSITIONS,
    )  # fmt: skip
