"""Texts in many scripts, and small tokenizers of every kind that read them."""

import functools

import tokenizers
import transformers
from tokenizers import decoders, models, pre_tokenizers, trainers

TEXTS = {
    "English": "the keys to the old cabinet",
    "signs": "it's 3.14, isn't it? (No!)",
    "one word": "cabinet",
    "Maltese": "Ġorġ jaf il-Ġuvni ta' Ċensu",
    "Chinese": "你好世界。今天天气很好。",
    "Japanese": "こんにちは 世界 カタカナ",
    "Korean": "안녕하세요 세계",
    "Thai": "สวัสดีชาวโลก",
    "Hindi": "नमस्ते दुनिया",
    "Arabic": "مرحبا بالعالم",
    "Hebrew": "שלום עולם",
    "Russian": "Ключи от старого шкафа",
    "Greek": "κλειδιά του παλιού",
    "Georgian": "გამარჯობა მსოფლიო",
    "Amharic": "ሰላም ልዑል",
    "emoji": "🙂👩🏽‍🚀 🇲🇹",
    "Gothic": "𐌲𐌿𐍄𐌹𐍃𐌺",
    "accents": "e\u0301te\u0301 ñandú ẞtraße",
}
N_WORDS = 400


@functools.cache
def byte_level():
    """Byte-level pairs, as of GPT-2 and Llama 3: some letters are one token, some several."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _trained(
        tokenizer,
        trainers.BpeTrainer(
            vocab_size=N_WORDS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=["<s>"],
            show_progress=False,
        ),
    )  # fmt: skip


@functools.cache
def word_piece():
    """Pieces of words, as of BERT."""
    tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    letters = trainers.WordPieceTrainer(
        vocab_size=N_WORDS, special_tokens=["[UNK]", "[CLS]", "[SEP]"], show_progress=False
    )
    return _trained(tokenizer, letters, unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]")


@functools.cache
def unigram(*, first_blank="always"):
    """SentencePiece's unigrams, with bytes for letters that no token holds, as of T5 and Gemma."""
    trained = tokenizers.Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=first_blank)
    special = ["<unk>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trained.train_from_iterator(
        [text for name, text in TEXTS.items() if name not in ("Thai", "Amharic", "emoji")],
        trainers.UnigramTrainer(
            vocab_size=N_WORDS + 256, special_tokens=special, unk_token="<unk>", show_progress=False
        ),
    )
    scores = {piece: -10.0 for piece, _ in sorted(trained.get_vocab().items(), key=lambda each: each[1])}
    tokenizer = tokenizers.Tokenizer(models.Unigram(list(scores.items()), unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=first_blank)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=first_blank), decoders.Fuse()]
    )
    return _fast(tokenizer, unk_token="<unk>", eos_token="</s>")


@functools.cache
def characters():
    """One token for each letter, and none for joining them."""
    letters = sorted({letter for text in TEXTS.values() for letter in text})
    tokenizer = tokenizers.Tokenizer(
        models.WordLevel({letter: i for i, letter in enumerate(["[UNK]", *letters])}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(tokenizers.Regex(r"[\s\S]"), "isolated")
    return _fast(tokenizer, unk_token="[UNK]")


@functools.cache
def byte_letters():
    """One token for each byte, read by Python: ByT5's."""
    return transformers.ByT5Tokenizer()


TOKENIZERS = {
    "byte-level": byte_level,
    "WordPiece": word_piece,
    "Unigram": unigram,
    "characters": characters,
    "bytes": byte_letters,
}


def _trained(tokenizer, trainer, **names):
    tokenizer.train_from_iterator(TEXTS.values(), trainer)
    return _fast(tokenizer, **names)


def _fast(tokenizer, **names):
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
