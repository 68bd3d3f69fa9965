"""`jaxflow compare texts.txt --model NAME|DIR`: methods x metrics, from a shell."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from jaxflow.cli import _arguments as types
from jaxflow.cli._streams import print_json, read_file, read_stdin

EPILOG = """examples:
  jaxflow compare sentences.txt
  jaxflow compare sentences.txt --model path/to/checkpoint --methods flow,rollout,random --metrics deletion,activation
  jaxflow compare sentences.txt --json --scores > comparison.json

exit status: 0 done, 1 could not be done (the reason is on standard error), 2 wrong usage"""


def add_compare(commands: Any) -> None:
    """Add `compare` to the commands of a parser."""
    compare = commands.add_parser(
        "compare",
        help="compare methods by whether their scores predict what the model does",
        description="Score the tokens of every text by several methods, hide what scores high and what scores low, and print by "
        "how much the model's own decision changes: methods x metrics, with bootstrap intervals.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    compare.add_argument("file", help="texts, one a line (blank lines are passed over); - reads standard input")
    compare.add_argument(
        "--model", default="agreement", metavar="NAME|DIR",
        help="a model of the package, or a checkpoint directory of a Flax class of transformers 4 with a head "
        "(default: %(default)s)",
    )  # fmt: skip
    compare.add_argument(
        "--methods", type=types.names, metavar="A,B,...", help="which methods (default: all; a wrong name lists them)"
    )
    compare.add_argument(
        "--metrics", type=types.names, metavar="A,B,...", help="which metrics (default: all; a wrong name lists them)"
    )
    compare.add_argument(
        "--against",
        metavar="METHOD",
        help="also print by how much each method differs from this one, on the same texts",
    )
    compare.add_argument(
        "--hide", type=types.hide, default="mask", metavar="mask|replace|ID",
        help="how tokens are hidden: by the attention mask, or with another token in their place (default: %(default)s)",
    )  # fmt: skip
    compare.add_argument(
        "--level", type=float, default=0.95, metavar="P", help="of the intervals, 0 to 1 (default: %(default)s)"
    )
    compare.add_argument(
        "--resamples", type=int, default=2000, metavar="N", help="of the bootstrap (default: %(default)s)"
    )
    compare.add_argument(
        "--seed", type=int, default=0, metavar="N",
        help="of the bootstrap, of random scores and of shuffled parameters (default: %(default)s)",
    )  # fmt: skip
    compare.add_argument("--json", action="store_true", help="print JSON instead of tables")
    compare.add_argument(
        "--scores", action="store_true", help="with --json: also each text's tokens, scores and values"
    )


def run_compare(arguments: argparse.Namespace) -> None:
    """Compare, and print.

    Raises:
        ValueError: as `compare`; a file without texts; scores asked for without JSON.
    """
    if arguments.scores and not arguments.json:
        raise ValueError("--scores are a part of --json: add --json.")
    if arguments.against is not None and arguments.json:
        raise ValueError("--against is a table: leave out --json, whose --scores has the values of each text.")
    whole = read_stdin() if arguments.file == "-" else read_file(Path(arguments.file))
    texts = [line.strip() for line in whole.splitlines() if line.strip()]
    if not texts:
        name = "standard input" if arguments.file == "-" else arguments.file
        raise ValueError(f"There is no text in {name}; expected one a line.")
    from jaxflow.attribute import METHODS
    from jaxflow.evaluate import Bootstrap, compare
    from jaxflow.models import load_model

    if arguments.against is not None and arguments.against not in (arguments.methods or METHODS):
        raise ValueError(f"--against {arguments.against} is none of the methods that are compared: see --methods.")
    model, tokenizer = load_model(arguments.model)
    compared = compare(
        model,
        texts,
        tokenizer=tokenizer,
        methods=arguments.methods,
        metrics=arguments.metrics,
        hide=arguments.hide,
        bootstrap=Bootstrap(level=arguments.level, n_resamples=arguments.resamples, seed=arguments.seed),
    )
    if arguments.json:
        print_json(compared.to_json(scores=arguments.scores))
    else:
        width = shutil.get_terminal_size((120, 24)).columns
        print(compared.to_text(width))
        if arguments.against is not None:
            print(f"\n{compared.differences(arguments.against, width=width)}")
