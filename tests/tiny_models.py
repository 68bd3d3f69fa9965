"""A tiny random model of every Flax class of transformers: configurations, inputs, and one way to build them all."""

import functools

import jax
import numpy as np
import transformers

from jaxflow.models._transformers._mending import mend_model, mended

VOCAB, WIDTH, HEADS, FEED, POSITIONS = 50, 32, 4, 40, 24
TEXT = {
    "vocab_size": VOCAB,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "intermediate_size": FEED,
    "max_position_embeddings": POSITIONS,
}
IMAGE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "intermediate_size": FEED,
    "image_size": 32,
    "patch_size": 8,
}
AUDIO = {
    "vocab_size": 20,
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": HEADS,
    "intermediate_size": FEED,
    "conv_dim": (16, 16),
    "conv_kernel": (4, 4),
    "conv_stride": (4, 4),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,  # the other order is not in the Flax class
    "mask_time_prob": 0.0,
}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT = SPECIAL | {"vocab_size": VOCAB, "n_embd": WIDTH, "n_layer": 2, "n_head": HEADS, "n_positions": POSITIONS}
LLAMA = SPECIAL | TEXT | {"num_hidden_layers": 2, "num_key_value_heads": 2}
LAYERS = {f"{part}_{name}": n for part in ("encoder", "decoder") for name, n in
          (("layers", 2), ("attention_heads", HEADS), ("ffn_dim", FEED))}  # fmt: skip
BART = SPECIAL | LAYERS | {"vocab_size": VOCAB, "d_model": WIDTH, "max_position_embeddings": POSITIONS}
BART |= {"decoder_start_token_id": 3, "forced_eos_token_id": 2}
T5 = {"vocab_size": VOCAB, "d_model": WIDTH, "d_kv": 8, "d_ff": FEED, "num_layers": 2, "num_heads": HEADS}
T5 |= {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 6, "decoder_start_token_id": 0}
WHISPER = BART | {"num_mel_bins": 8, "max_source_positions": 6, "max_target_positions": POSITIONS}
WHISPER |= {"suppress_tokens": None, "begin_suppress_tokens": None}

ENCODERS = {
    "Bert": ("Bert", TEXT),
    "Roberta": ("Roberta", TEXT),
    "XLMRoberta": ("XLMRoberta", TEXT | {"num_hidden_layers": 12}),
    "RobertaPreLayerNorm": ("RobertaPreLayerNorm", TEXT),
    "Electra": ("Electra", TEXT | {"embedding_size": 16}),
    "Albert": ("Albert", TEXT | {"embedding_size": 16}),
    "DistilBert": (
        "DistilBert",
        {"vocab_size": 50, "dim": 32, "n_layers": 3, "n_heads": 4, "hidden_dim": 40, "max_position_embeddings": 24},
    ),
    "RoFormer": ("RoFormer", TEXT | {"embedding_size": WIDTH}),
    "BigBird": ("BigBird", TEXT | {"attention_type": "original_full"}),
    "ViT": ("ViT", IMAGE),
    "Beit": ("Beit", IMAGE | {"use_relative_position_bias": True}),
    "Dinov2": ("Dinov2", {k: v for k, v in IMAGE.items() if k != "intermediate_size"} | {"mlp_ratio": 2}),
    "CLIPText": ("CLIPText", TEXT),
    "CLIPVision": ("CLIPVision", IMAGE),
    "Wav2Vec2": ("Wav2Vec2", AUDIO),
    "T5Encoder": ("T5", T5 | {"num_layers": 3}),
    "MT5Encoder": ("MT5", T5 | {"num_layers": 3}),
}
DECODERS = {
    "GPT2": ("GPT2", GPT),
    "GPTNeo": (
        "GPTNeo",
        SPECIAL
        | {"vocab_size": VOCAB, "hidden_size": WIDTH, "num_layers": 2, "num_heads": HEADS, "window_size": 3}
        | {"attention_types": [[["global", "local"], 1]], "max_position_embeddings": POSITIONS},
    ),
    "GPTJ": ("GPTJ", GPT | {"rotary_dim": 4}),
    "OPT": ("OPT", SPECIAL | TEXT | {"num_hidden_layers": 2, "ffn_dim": FEED, "word_embed_proj_dim": WIDTH}),
    "Llama": ("Llama", LLAMA),
    "Gemma": ("Gemma", LLAMA | {"head_dim": 8, "hidden_activation": "gelu_pytorch_tanh"}),
    "Mistral": ("Mistral", LLAMA | {"sliding_window": 3}),
    "Bloom": ("Bloom", SPECIAL | {"vocab_size": VOCAB, "hidden_size": WIDTH, "n_layer": 2, "n_head": HEADS}),
    "XGLM": (
        "XGLM",
        SPECIAL
        | {"vocab_size": VOCAB, "d_model": WIDTH, "num_layers": 2, "attention_heads": HEADS, "ffn_dim": FEED}
        | {"max_position_embeddings": POSITIONS},
    ),
    "Bart decoder": ("Bart", BART),
}
ENCODER_DECODERS = {
    "Bart": ("Bart", BART),
    "MBart": ("MBart", BART),
    "Pegasus": ("Pegasus", BART),
    "Marian": ("Marian", BART),
    "Blenderbot": ("Blenderbot", BART),
    "BlenderbotSmall": ("BlenderbotSmall", BART),
    "Whisper": ("Whisper", WHISPER),
    "T5": ("T5", T5),
    "MT5": ("MT5", T5 | {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}),
}
CONFIGS = (
    ENCODERS
    | DECODERS
    | ENCODER_DECODERS
    | {"GPT2 with cross-attention": ("GPT2", GPT | {"add_cross_attention": True})}
)
WITH_GENERATION = dict.fromkeys(DECODERS, "ForCausalLM") | {
    "GPT2": "LMHeadModel",
    "GPT2 with cross-attention": "LMHeadModel",
}
WITH_GENERATION |= dict.fromkeys(ENCODER_DECODERS, "ForConditionalGeneration") | {"Marian": "MTModel"}

IDS = np.array([[2, 3, 4, 5, 6, 7, 8], [9, 8, 7, 6, 1, 1, 1]])
MASK = np.array([[1] * 7, [1] * 4 + [0] * 3])
BOTH_SIDES = np.array([[0, 0] + [1] * 5, [1] * 4 + [0] * 3])  # padded on the left, and on the right
TARGET = np.array([[3, 9, 12, 4, 30, 22, 8], [3, 8, 41, 6, 17, 0, 0]])  # as long as the source
PIXELS = np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype("float32")
WAVES = np.random.default_rng(0).normal(size=(2, 240)).astype("float32")
MEL = np.random.default_rng(0).normal(size=(2, 8, 12)).astype("float32")
HIDDEN = np.random.default_rng(0).normal(size=(2, 7, WIDTH)).astype("float32")


def inputs(name):
    """Inputs of the model of that name, by name: a batch of two, padded where it can be."""
    if name in ("ViT", "Beit", "Dinov2", "CLIPVision"):
        return {"pixel_values": PIXELS}
    if name == "Wav2Vec2":
        return {"input_values": WAVES}
    if name in ENCODERS:
        return {"input_ids": IDS, "attention_mask": MASK}
    if name == "Whisper":
        return {"input_features": MEL, "decoder_input_ids": TARGET}
    inputs = {"input_ids": IDS, "attention_mask": BOTH_SIDES}
    if name in ENCODER_DECODERS:
        inputs |= {"decoder_input_ids": TARGET, "decoder_attention_mask": BOTH_SIDES[::-1]}
    return inputs | ({"encoder_hidden_states": HIDDEN, "encoder_attention_mask": MASK} if "cross" in name else {})


@functools.cache
def build(name, head=None, **options):
    """A tiny model whose weights are large enough for the layers' attention to differ."""
    head = head or ("ForCausalLM" if name == "Bart decoder" else "Model")
    config, sizes = CONFIGS[name]
    config = getattr(transformers, f"{config}Config")(**sizes | options)
    more = {"input_shape": (1, 240)} if name == "Wav2Vec2" else {}
    with mended():
        model = getattr(transformers, f"Flax{name.split()[0]}{head}")(config, _do_init=False, **more)
    mend_model(model)
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        is_scale = leaf.ndim < 2 and path[-1].key in ("scale", "weight", "lambda1")
        return (is_scale + (0.05 if leaf.ndim < 2 else 0.2) * rng.normal(size=leaf.shape)).astype(leaf.dtype)

    model._is_initialized = True
    model.params = jax.tree_util.tree_map_with_path(draw, model.params_shape_tree)
    return model
