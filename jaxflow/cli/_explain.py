"""`jaxflow explain "the keys to the old cabinet"`."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import Any

from jaxflow._printable import printable
from jaxflow.cli import _arguments as types
from jaxflow.cli._interrupt import cleans_up
from jaxflow.cli._streams import check_page, print_json, read_file, read_stdin

EPILOG = """examples:
  jaxflow explain "the keys to the old cabinet"
  jaxflow explain --model path/to/checkpoint --output all --html page.html "A sentence."
  jaxflow explain --method rollout --json - < sentence.txt

exit status: 0 done, 1 could not be done (the reason is on standard error), 2 wrong usage"""
# Not asked of the library, so that --help answers at once.
METHODS = (
    "flow", "contributions", "contribution_flow", "shapley", "rollout", "raw", "gradient", "input_x_gradient",
    "integrated_gradients", "leave_one_out", "token_shapley", "random",
)  # fmt: skip
OPTIONS = (
    "heads",
    "residual",
    "weighting",
    "normalise",
    "feedback",
    "correction",
    "solver",
    "tolerance",
    "budget_seconds",
)


def add_explain(commands: Any) -> argparse.ArgumentParser:
    """Add `explain` to the commands of a parser, and return its parser."""
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
        "--exact", action="store_true",
        help="keep a line break at the end of a file or of standard input, which is left out otherwise",
    )  # fmt: skip
    explain.add_argument(
        "--model", default="agreement", metavar="NAME|DIR",
        help="a model of the package, or a checkpoint directory of a Flax class of transformers 4 (default: %(default)s)",
    )  # fmt: skip
    explain.add_argument(
        "--output", metavar="N|TOKEN|all", type=types.output,
        help="which position to explain: its number, from the end as --output -1, the name of its token, such as [MASK], or all "
        "of them (default: 0, the classification token, or the mask of a masked language model, and all with --html; of a model "
        "that generates, every position after which it wrote a token)",
    )  # fmt: skip
    explain.add_argument(
        "--joint", action="store_true", help="explain the outputs as one set: what can flow to any of them"
    )
    explain.add_argument(
        "--spans", choices=("words", "lines", "paragraphs"),
        help="what counts as one input, by the joint flow of its tokens (default: each token)",
    )  # fmt: skip
    explain.add_argument(
        "--target", metavar="LABEL",
        help="the label (or token) whose logit is explained, by name or number, for methods that depend on it, as contributions "
        "do (default: what the model predicts, or at each output the token that it wrote)",
    )  # fmt: skip
    explain.add_argument(
        "--contrast",
        metavar="LABEL",
        help="explain why the target rather than this label (or token): the difference of their logits",
    )
    _add_method(explain)
    generating = explain.add_argument_group("models that generate (causal and sequence-to-sequence)")
    generating.add_argument(
        "--max-new-tokens", type=types.positive, metavar="N",
        help="how many tokens the model writes at most (default: 20; models of the package write to their end)",
    )  # fmt: skip
    generating.add_argument(
        "--continuation", metavar="TEXT", help="explain this continuation or target instead of the model's own"
    )
    generating.add_argument(
        "--feedback", choices=("prefix", "unrolled"),
        help="whether tokens written earlier are inputs too, or pass on what was given (default: prefix)",
    )  # fmt: skip
    generating.add_argument(
        "--correction",
        choices=("decay", "uniform"),
        help="correct the causal bias towards early tokens (default: none)",
    )
    explain.add_argument(
        "--json", action="store_true", help="print everything as JSON instead (as Explanation.save writes it)"
    )
    explain.add_argument(
        "--html", type=Path, metavar="FILE", help="also write a page, one file that makes no web requests"
    )
    return explain


def _add_method(explain: argparse.ArgumentParser) -> None:
    method = explain.add_argument_group("method")
    method.add_argument(
        "--method",
        choices=METHODS,
        help="how to score (default: flow, what each token could send, and beside it contributions, what it did give)",
    )
    method.add_argument(
        "--heads",
        metavar="mean|max|N",
        type=types.heads,
        help="how heads are reduced: mean, max or one head (default: mean)",
    )
    method.add_argument(
        "--residual", type=types.residual, metavar="R", help="share of the residual stream, 0 to 1 (default: 0.5)"
    )
    method.add_argument(
        "--weighting", choices=("attention", "gradient", "attention_gradient"),
        help="what can flow: attention, or what of it matters to the target, by gradients (default: attention)",
    )  # fmt: skip
    method.add_argument("--normalise", action="store_true", default=None, help="let the scores of each output sum to 1")
    method.add_argument(
        "--solver", choices=("certified", "ortools"),
        help="what finds the flows: fast, each value with its proof, or the reference (default: certified)",
    )  # fmt: skip
    method.add_argument(
        "--tolerance",
        type=types.not_negative,
        metavar="X",
        help="stop at scores proved to within X (default: 0, exact)",
    )
    method.add_argument(
        "--budget-seconds", type=types.not_negative, metavar="S",
        help="stop after S seconds; scores that are unfinished then are shown as unknown",
    )  # fmt: skip


def run_explain(arguments: argparse.Namespace, text: str) -> None:
    """Explain, and print.

    Raises:
        ValueError: as `explain`; options that the method or the model does not have.
    """
    if arguments.html is not None:
        check_page(arguments.html)
    # Late, so that --help and usage errors answer at once.
    from rich.console import Console

    from jaxflow.explain import Generate, explain
    from jaxflow.models import as_model, load_model
    from jaxflow.views import InTerminal, has_colours, to_text

    loaded, tokenizer = load_model(arguments.model)
    model = as_model(loaded)
    generates = model.facts.generation is not None
    asked = {"--continuation": arguments.continuation, "--max-new-tokens": arguments.max_new_tokens}
    asked |= {"--feedback": arguments.feedback, "--correction": arguments.correction}
    flags = [flag for flag, value in asked.items() if value is not None]
    if flags and not generates:
        raise ValueError(f"{', '.join(flags)}: for models that generate, and {model.name} does not.")
    every = arguments.output == "all" or (arguments.output is None and (arguments.html or arguments.joint or generates))
    target, contrast = (
        int(label) if label and label.isdecimal() else label for label in (arguments.target, arguments.contrast)
    )
    explanation = explain(
        model,
        text,
        _method(arguments),
        tokenizer=tokenizer,
        target=target if contrast is None else (target, contrast),
        generate=Generate(arguments.max_new_tokens, arguments.continuation) if generates else None,
        positions=None if every else _position(arguments, tokenizer, text),
        spans=arguments.spans,
        joint=arguments.joint,
    )
    console = Console()
    rows = None if arguments.output is not None or arguments.joint or generates else (0,)
    if arguments.json:
        print_json(explanation.to_json())
    elif has_colours(console):
        console.print(InTerminal(explanation, rows))
    else:
        print(to_text(explanation, rows=rows))
    if arguments.html is not None:  # last, so that what was found is shown also if it cannot be written
        sys.stdout.flush()
        with cleans_up():
            explanation.save(arguments.html)
        if sys.stderr is not None:
            print(f"jaxflow: wrote {printable(str(arguments.html))}", file=sys.stderr)


def _position(arguments: argparse.Namespace, tokenizer: Any, text: str) -> int | str:
    """Return the position that is explained; by default the mask that is to be filled, or else the first."""
    if arguments.output is not None:
        return arguments.output
    mask = getattr(tokenizer, "special_tokens_map", {}).get("mask_token")
    return str(mask) if mask and str(mask) in text else 0


def read_text(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> str:
    """Return the text that is to be explained.

    Raises:
        OSError: a file that cannot be read.
        ValueError: a text that is no UTF-8.
    """
    if arguments.file is not None:
        if arguments.text is not None:
            parser.error("a text and --file are both given; expected one of them")
        return _ended(read_file(arguments.file), is_exact=arguments.exact)
    if arguments.text not in (None, "-"):
        if any("\ud800" <= sign <= "\udfff" for sign in arguments.text):
            raise ValueError("The text is no UTF-8: write it to a file, and pass --file, or set a locale that fits it.")
        return arguments.text.removeprefix("\ufeff")
    if arguments.text is None and (sys.stdin is None or sys.stdin.isatty()):
        parser.error(
            'no text: give one in quotes, --file FILE, or standard input. Such as: jaxflow explain "the keys to the cabinet"'
        )
    return _ended(read_stdin(), is_exact=arguments.exact)


def _ended(text: str, *, is_exact: bool) -> str:
    """Leave out one line break at the end, as editors and "echo" put it there; all else belongs to the text."""
    return text if is_exact else text.removesuffix("\n").removesuffix("\r")


def _method(arguments: argparse.Namespace) -> Any:
    """Return the method with the options that are given."""
    from jaxflow.attribute import as_method, method_options

    options = {name: value for name in OPTIONS if (value := getattr(arguments, name)) is not None}
    if arguments.method is None and not options:
        return None
    method: Any = as_method(arguments.method or "flow")
    unknown = [f"--{name.replace('_', '-')}" for name in options if name not in method_options(method)]
    if unknown:
        raise ValueError(
            f"{', '.join(unknown)}: not of the method {arguments.method!r}, whose options are "
            f"{', '.join(method_options(method)) or 'none'}."
        )
    return dataclasses.replace(method, **options)
