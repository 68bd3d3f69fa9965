"""Make the models of the package anew: `python -m jaxflow.zoo.reproduce [NAME ...] --output jaxflow/zoo`.

Trains each with the settings and the seed it was trained with, and writes its weights and its card. The same versions
on the same kind of processor give the same weights, to the bit; on another, weights and figures like them.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from jaxflow.zoo import command, names, package_of


def main(argv: Sequence[str] | None = None) -> None:
    """Train the models that are named, or all, one after another."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxflow.zoo.reproduce",
        description="Train the models of the package anew, with their seeds; write their weights and model cards.",
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(names())} (default: all)")
    parser.add_argument(
        "--output", type=Path, default=Path("zoo"),
        help="directory to write to, in which each gets one of its own; jaxflow/zoo replaces those of a checkout "
        "(default: %(default)s)",
    )  # fmt: skip
    command.add_settings(parser)
    arguments = vars(parser.parse_args(argv))
    wanted, output = arguments.pop("names") or names(), arguments.pop("output")
    if unknown := [name for name in wanted if name not in names()]:
        parser.error(f"the package has no model {unknown[0]!r}; it has {', '.join(names())}")
    changes = {field: value for field, value in arguments.items() if value is not None}
    for name in wanted:
        package = package_of(name)
        recipe = import_module(f"{package}.train").recipe()
        print(f"{name}:")
        settings = dataclasses.replace(recipe.settings, **changes)
        command.make(recipe, settings, output=output / package.rpartition(".")[2])


if __name__ == "__main__":
    main()
