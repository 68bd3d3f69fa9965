"""The command that trains a model: takes options, writes weights and a model card."""

import argparse
import os
import platform
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from jaxflow import __version__
from jaxflow.zoo import package_of
from jaxflow.zoo._weights import file_of
from zoo.card import Run
from zoo.training import Settings
from zoo.weights import rounded, write_weights

Table = list[tuple[str, int, float]]
"""Rows of (name of a group of examples, number of examples, accuracy in [0, 1])."""

OUTPUT = Path("build/zoo")
"""Where models are written to, each to a directory of its own, if the command does not say otherwise."""


@dataclass(frozen=True)
class Recipe:
    """How a model is made.

    Attributes:
        name: As `load_model` takes it.
        vocabulary: Its tokens, in order.
        settings: The defaults of the command.
        examples: The word for its training examples, in the plural; also the option that sets their number.
        train: Trains, with a progress bar, and returns the parameters.
        report: Evaluates the trained parameters; returns the model card and the table to print.
        dtype: Of the stored parameters. The model computes in float32.
    """

    name: str
    vocabulary: Sequence[str]
    settings: Settings
    examples: str
    train: Callable[[Settings], Any]
    report: Callable[[Any, Run], tuple[str, Table]]
    dtype: str = "float32"


def main(recipe: Recipe, argv: Sequence[str] | None = None) -> None:
    """Train with the options of a command line; write weights and card, print the table."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {_trainer(recipe.name)}",
        description=f"Train the model {recipe.name}; write its weights and its model card.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=OUTPUT / directory_of(recipe.name), help="directory to write to")
    add_settings(parser, recipe)
    arguments = vars(parser.parse_args(argv))
    output = arguments.pop("output")
    make(recipe, Settings(**arguments), output=output)


def directory_of(name: str) -> str:
    """Give the directory of a model: `agreement-lm` is in `agreement_lm`."""
    return package_of(name).rpartition(".")[2]


def make(recipe: Recipe, settings: Settings, *, output: Path) -> None:
    """Train; write weights and card to a directory, print the table."""
    start = time.perf_counter()
    params = rounded(recipe.train(settings), recipe.dtype)  # Measured as they are stored.
    seconds = time.perf_counter() - start
    output.mkdir(parents=True, exist_ok=True)
    file = output / file_of(recipe.name)
    made_by = {"seed": str(settings.seed), "steps": str(settings.steps), "jaxflow": __version__}
    write_weights(params, file, dtype=recipe.dtype, name=recipe.name, vocabulary=recipe.vocabulary, made_by=made_by)
    run = Run(
        command=_command(recipe, settings, output),
        settings=settings,
        examples=recipe.examples,
        seconds=seconds,
        machine=f"{os.cpu_count()} {platform.machine()} cores, {jax.default_backend()}",
        versions={"jaxflow": __version__, **{name: version(name) for name in ("jax", "flax", "optax", "numpy")}},
        n_parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        n_bytes=file.stat().st_size,
    )
    card, table = recipe.report(params, run)
    (output / "README.md").write_text(card, encoding="utf-8")
    for name, count, share in table:
        print(f"{name:40} {count:6} {recipe.examples}  {100 * share:6.2f} %")
    print(f"{seconds:.0f} s; wrote {file} and its card")


def add_settings(parser: argparse.ArgumentParser, recipe: Recipe | None = None) -> None:
    """Add an option for each field of `Settings`. The defaults are those of the recipe; without a recipe, None."""
    examples = "examples" if recipe is None else recipe.examples
    for field, (kind, text) in _SETTINGS.items():
        default = None if recipe is None else getattr(recipe.settings, field)
        help_text = text.format(examples=examples) + ("; by default each model's own" if recipe is None else "")
        parser.add_argument(f"--{_option(field, examples)}", dest=field, type=kind, default=default, help=help_text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number


def _seed(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


_SETTINGS: dict[str, tuple[Callable[[str], Any], str]] = {
    "seed": (_seed, "of {examples}, parameters and batches"),
    "steps": (_positive, "steps of the optimiser"),
    "batch_size": (_positive, "{examples} in a step"),
    "n_examples": (_positive, "training {examples} to generate"),
    "learning_rate": (float, "highest learning rate"),
    "weight_decay": (float, "weight decay of AdamW"),
}


def _option(field: str, examples: str) -> str:
    return examples if field == "n_examples" else field.replace("_", "-")


def _command(recipe: Recipe, settings: Settings, output: Path) -> str:
    # Every setting, so that a default that changes later leaves the card true.
    words = [f"--output={output}"]
    words += [f"--{_option(field, recipe.examples)}={getattr(settings, field)}" for field in _SETTINGS]
    return shlex.join(["python", "-m", _trainer(recipe.name), *words])


def _trainer(name: str) -> str:
    return f"zoo.{directory_of(name)}.train"
