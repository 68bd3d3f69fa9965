"""Train the shipped models again: `python -m zoo.reproduce [NAME ...]`, in a checkout.

Each is trained with its own settings and seed; its weights and its model card are written. With the same versions on the
same kind of processor the weights are equal bit for bit. On another processor rounding differs, and the weights with it.

`--output jaxflow/zoo` replaces the models of the checkout.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from jaxflow.zoo import names
from zoo import command


def main(argv: Sequence[str] | None = None) -> None:
    """Train the named models, or all, one after another."""
    parser = argparse.ArgumentParser(
        prog="python -m zoo.reproduce",
        description="Train the shipped models again, with their seeds; write their weights and model cards.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names())} (default: all)")
    parser.add_argument(
        "--output", type=Path, default=command.OUTPUT,
        help="directory to write to, with a directory for each model; jaxflow/zoo replaces those of the checkout "
        "(default: %(default)s)",
    )  # fmt: skip
    command.add_settings(parser)
    arguments = vars(parser.parse_args(argv))
    wanted, output = arguments.pop("names") or names(), arguments.pop("output")
    if unknown := [name for name in wanted if name not in names()]:
        parser.error(f"the package has no model {unknown[0]!r}; it has {', '.join(names())}")
    changes = {field: value for field, value in arguments.items() if value is not None}
    for name in wanted:
        directory = command.directory_of(name)
        recipe = import_module(f"zoo.{directory}.train").recipe()
        print(f"{name}:")
        settings = dataclasses.replace(recipe.settings, **changes)
        command.make(recipe, settings, output=output / directory)


if __name__ == "__main__":
    main()
