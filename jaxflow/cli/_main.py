"""jaxflow from a shell: `jaxflow explain "the keys to the old cabinet"`."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxflow._version import __version__
from jaxflow.cli._compare import add_compare, run_compare

EPILOG = """examples:
  jaxflow explain "the keys to the old cabinet"
  jaxflow explain --model path/to/checkpoint --output all --html page.html "A sentence."
  jaxflow explain --method rollout --json - < sentence.txt
  jaxflow compare sentences.txt --model path/to/checkpoint

exit status: 0 done, 1 could not be done (the reason is on standard error), 2 wrong usage"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 (could not) or 2 (usage)."""
    parser = _parser()
    try:
        arguments = parser.parse_args(argv)
        text = _text(parser, arguments) if arguments.command == "explain" else ""
    except SystemExit as stop:  # argparse has printed help (0) or what is wrong (2)
        return int(stop.code or 0)
    except (OSError, UnicodeDecodeError) as error:
        return _fail(str(error))
    try:
        _quiet()
        if arguments.command == "explain":
            _explain(arguments, text)
        else:
            run_compare(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has seen enough, `| head` say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, ImportError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        return _fail("interrupted")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="jaxflow",
        description="Attention flow for JAX: how much each input token can influence a Transformer's decision.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    explain = commands.add_parser(
        "explain",
        help="explain what a model makes of a text",
        description="Run a model on a text and print, for an output, its prediction and a score per input token.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    explain.add_argument("text", nargs="?", help="the text; - or nothing reads standard input")
    explain.add_argument("--file", type=Path, help="read the text from this file instead")
    explain.add_argument(
        "--model", default="agreement", metavar="NAME|DIR",
        help="a model of the package, or a checkpoint directory of a Flax class of transformers 4 (default: %(default)s)",
    )  # fmt: skip
    explain.add_argument(
        "--output", metavar="N|all", type=_output,
        help="which position to explain, or all of them (default: 0, the classification token, and all with --html; "
        "of a model that writes, every position after which it wrote a token)",
    )  # fmt: skip
    explain.add_argument(
        "--together", action="store_true", help="explain the outputs as one set: what can flow to any of them"
    )
    explain.add_argument(
        "--spans", choices=("words", "lines", "paragraphs"),
        help="what counts as one input, by the joint flow of its tokens (default: each token)",
    )  # fmt: skip
    explain.add_argument(
        "--method", choices=("flow", "shapley", "rollout", "raw"), default="flow",
        help="maximum flow of each token, all tokens' flow shared among them, product of the layers, or the last layer's "
        "attention (default: %(default)s)",
    )  # fmt: skip
    explain.add_argument(
        "--heads",
        default="mean",
        metavar="mean|max|N",
        type=_heads,
        help="how heads are reduced: mean, max or one head (default: %(default)s)",
    )
    explain.add_argument(
        "--residual",
        type=_residual,
        metavar="R",
        help="share of the residual stream, 0 to 1 (default: 0.5; raw attention has none)",
    )
    explain.add_argument(
        "--weighting", choices=("attention", "gradient", "attention_gradient"), default="attention",
        help="what can flow: attention, or what of it matters to --target, by gradients (default: %(default)s)",
    )  # fmt: skip
    explain.add_argument(
        "--target", metavar="LABEL",
        help="the label (or token) whose logit is explained, by name or number (default, of a model that writes: at each output "
        "the token that it wrote)",
    )  # fmt: skip
    writing = explain.add_argument_group("models that write (causal and sequence-to-sequence)")
    writing.add_argument(
        "--max-new-tokens", type=_positive, metavar="N",
        help="how many tokens the model writes at most (default: 20; models of the package write to their end)",
    )  # fmt: skip
    writing.add_argument(
        "--continuation", metavar="TEXT", help="explain this continuation or target instead of the model's own"
    )
    writing.add_argument(
        "--feedback", choices=("prefix", "unrolled"),
        help="whether tokens written earlier are inputs too, or pass on what was given (default: prefix)",
    )  # fmt: skip
    writing.add_argument(
        "--correction",
        choices=("decay", "uniform"),
        help="correct the causal bias towards early tokens (default: none)",
    )
    explain.add_argument("--normalise", action="store_true", help="let the scores of each output sum to 1")
    solving = explain.add_argument_group("long texts")
    solving.add_argument(
        "--solver", choices=("certified", "ortools"),
        help="what finds the flows: fast, each value with its proof, or the reference (default: certified)",
    )  # fmt: skip
    solving.add_argument(
        "--tolerance",
        type=_not_negative,
        metavar="X",
        help="be content with scores proved to within X (default: 0, exact)",
    )
    solving.add_argument(
        "--budget-seconds", type=_not_negative, metavar="S",
        help="stop after S seconds; scores that are unfinished then are shown as unknown",
    )  # fmt: skip
    explain.add_argument(
        "--json", action="store_true", help="print everything as JSON instead (as Explanation.save writes it)"
    )
    explain.add_argument("--html", type=Path, metavar="FILE", help="also write a page, which opens without a network")
    add_compare(commands)
    return parser


def _explain(arguments: argparse.Namespace, text: str) -> None:
    # Late, so that --help and usage errors answer at once.
    from rich.console import Console

    from jaxflow import explain, explain_generation, load_model
    from jaxflow.capture import can_generate
    from jaxflow.views._terminal import InTerminal, has_colours
    from jaxflow.views._text import to_text

    model, tokenizer = load_model(arguments.model)
    options: dict[str, Any] = {
        "tokenizer": tokenizer,
        "spans": arguments.spans,
        "together": arguments.together,
        "method": arguments.method,
        "heads": arguments.heads,
        "residual": arguments.residual,
        "normalise": arguments.normalise,
        "flow_graph": False,
        "progress": True,
    }
    if arguments.html is not None and arguments.method == "flow":
        options["flow_graph"] = None  # where it is cheap
    for name in ("solver", "tolerance", "budget_seconds"):
        if getattr(arguments, name) is not None:
            options[name] = getattr(arguments, name)
    names = ("max_new_tokens", "continuation", "feedback", "correction")
    writing = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    every = arguments.output == "all" or (
        arguments.output is None and (arguments.html or arguments.together or can_generate(model))
    )
    outputs = None if every else arguments.output or 0
    target = arguments.target
    weighted = {"weighting": arguments.weighting, "target": int(target) if target and target.isdecimal() else target}
    if can_generate(model):
        explanation = explain_generation(model, text, outputs=outputs, **options, **weighted, **writing)
    elif writing:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in writing)
        raise ValueError(f"{flags}: for models that write, and {type(model).__name__} does not.")
    else:
        explanation = explain(model, text, outputs=outputs, **options, **weighted)
    if arguments.html is not None:
        explanation.save(arguments.html)
    if arguments.json:
        print(explanation.to_json())
        return
    console = Console()
    rows = None if arguments.output is not None or arguments.together or can_generate(model) else (0,)
    if has_colours(console):
        console.print(InTerminal(explanation, rows))
    else:
        print(to_text(explanation, rows=rows))


def _text(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    if arguments.file is not None:
        if arguments.text is not None:
            parser.error("a text and --file are both given; expected one of them")
        return arguments.file.read_text("utf-8").strip()
    if arguments.text not in (None, "-"):
        return arguments.text
    if arguments.text is None and sys.stdin.isatty():
        parser.error(
            'no text: give one in quotes, --file FILE, or standard input. Such as: jaxflow explain "the keys to the cabinet"'
        )
    return sys.stdin.read().strip()


def _heads(value: str) -> str | int:
    return value if value in ("mean", "max") else _whole_number(value, "mean, max or the index of a head")


def _output(value: str) -> int | str:
    return value if value == "all" else _whole_number(value, "a position or all")


def _positive(value: str) -> int:
    number = _whole_number(value, "a number of tokens, 1 or more")
    if number < 1:
        raise argparse.ArgumentTypeError(f"{value!r}; expected a number of tokens, 1 or more")
    return number


def _residual(value: str) -> float:
    try:
        residual = float(value)
    except ValueError:
        residual = -1.0
    if not 0 <= residual <= 1:
        raise argparse.ArgumentTypeError(f"{value!r}; expected a number from 0 to 1")
    return residual


def _not_negative(value: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{value!r}; expected a number, 0 or more")
    return number


def _whole_number(value: str, expected: str) -> int:
    if not value.isascii() or not value.isdigit():
        raise argparse.ArgumentTypeError(f"{value!r}; expected {expected}")
    return int(value)


def _quiet() -> None:
    """Keep the notices of libraries off the terminal: this process is ours alone."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)


def _fail(reason: str) -> int:
    print(f"jaxflow: {reason}", file=sys.stderr)
    return 1
