"""Print what is captured of every Flax class of transformers 4, as Markdown: `python benchmarks/classes.py`.

Each class runs with a tiny random configuration, those that read text or speech after `load_model` from a directory;
every stack is compared with the class's own `output_attentions`. The contributions to one number of the outputs are summed up
level by level: the last column says by which part of that number a sum is off at most. Classes that are refused stand below,
with the reason that the user reads.
"""

import importlib.metadata
import inspect
import os
import sys
import tempfile
import warnings
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"
warnings.filterwarnings("ignore")
sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))  # the tiny models of the tests

import checkpoints  # noqa: E402
import flax.linen as nn  # noqa: E402
import jax  # noqa: E402
import levels  # noqa: E402
import numpy as np  # noqa: E402
import tiny_models  # noqa: E402
import transformers  # noqa: E402

import jaxflow as jf  # noqa: E402

FIELDS = {
    "encoder": ("encoder_attentions", "attentions"),
    "decoder": ("decoder_attentions", "attentions"),
    "cross": ("cross_attentions",),
}
REFUSED = {
    "LongT5": {},
    "BigBird": {"attention_type": "block_sparse"},
    "Llama": {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
    "CLIP": {},
}


def main() -> None:
    jax.config.update("jax_disable_most_optimizations", True)  # each model is compiled for one run
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("transformers", "jax", "flax"))
    print(f"{versions}\n")
    columns = ("class", "architecture", "captured", "its weights are", "greatest difference from `output_attentions`")
    print(f"| {' | '.join(columns)} | contributions off by |")
    print("|---|---|---|---|---:|---:|")
    for names in (
        tiny_models.ENCODERS,
        tiny_models.DECODERS,
        ["GPT2 with cross-attention"],
        tiny_models.ENCODER_DECODERS,
    ):
        for name in names:
            print(captured(name), flush=True)
    print("\n| class | refused, because |\n|---|---|")
    for name, options in REFUSED.items():
        print(f"| {label(name, options)} | {refusal(name, options)} |")


def captured(name: str) -> str:
    """Load a checkpoint of this class, capture it, and return its row of the table."""
    inputs = tiny_models.inputs(name)
    with tempfile.TemporaryDirectory() as directory:
        model = checkpoints.save(Path(directory), name)
        if "input_ids" in inputs or name == "Whisper":  # the others have a processor, which would need a package more
            model, _ = jf.load_model(directory)
    reference = model(**inputs, output_attentions=True)
    ways: set[str] = set()

    def look(call, args, kwargs, context):
        if context.method_name == "__call__" and type(context.module).__name__.endswith("Attention"):
            asked = "output_attentions" in inspect.signature(context.orig_method).parameters
            ways.add("asked for" if asked else "returned always")
        return call(*args, **kwargs)

    with nn.intercept_methods(look):
        _, attention = jf.capture(model, **inputs)
    stacks = {stack: getattr(attention, stack) for stack in FIELDS if getattr(attention, stack) is not None}
    difference = 0.0
    for stack, weights in stacks.items():
        own = next(reference[field] for field in FIELDS[stack] if reference.get(field) is not None)
        difference = max(difference, float(np.abs(np.stack(own, 1) - weights).max()))
    architecture = {1: f"{next(iter(stacks))}-only", 2: "decoder with cross-attention", 3: "encoder-decoder"}[
        len(stacks)
    ]
    title = type(model).__name__.removeprefix("Flax") + (", `add_cross_attention=True`" if "cross" in name else "")
    cells = (title, architecture, ", ".join(stacks), ", ".join(sorted(ways)), f"{difference:.1g}", sums(model, inputs))
    return f"| {' | '.join(cells)} |"


def sums(model, inputs: dict) -> str:
    """Say how far the levels of contributions are off, or why there are none."""
    try:
        _, _, contributions = jf.capture_contributions(model, target=levels.largest, **inputs)
    except ValueError as error:
        return f"refused: {error}"
    return f"{levels.off_by(contributions):.0e}"


def refusal(name: str, options: dict) -> str:
    """Try to load a checkpoint of this class, and return the error."""
    sizes = tiny_models.CONFIGS.get(name, tiny_models.CONFIGS["T5"])[1]
    if name == "CLIP":
        sizes = {"text_config": tiny_models.TEXT, "vision_config": tiny_models.IMAGE}
    config = getattr(transformers, f"{name}Config")(**sizes | options, architectures=[f"{name}Model"])
    with tempfile.TemporaryDirectory() as directory:
        config.save_pretrained(directory)
        (Path(directory) / "model.safetensors").touch()
        try:
            jf.load_model(directory)
        except ValueError as error:
            return str(error)
    raise SystemExit(f"{name} was not refused")


def label(name: str, options: dict) -> str:
    """Name a class together with the options that it is refused for."""
    return name + "".join(f", `{option}={value!r}`" for option, value in options.items())


if __name__ == "__main__":
    main()
