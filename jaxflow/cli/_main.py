"""jaxflow from a shell: the parser, and what becomes of errors."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

from jaxflow._printable import printable
from jaxflow._version import __version__
from jaxflow.cli._cache import keep_programs
from jaxflow.cli._compare import add_compare, run_compare
from jaxflow.cli._explain import add_explain, read_text, run_explain
from jaxflow.cli._interrupt import INTERRUPTED, ends_at_once
from jaxflow.cli._streams import show_all_signs

EPILOG = """examples:
  jaxflow explain "the keys to the old cabinet"
  jaxflow explain --model path/to/checkpoint --output all --html page.html "A sentence."
  jaxflow compare sentences.txt --model path/to/checkpoint

exit status: 0 done, 1 could not be done (the reason is on standard error), 2 wrong usage, 130 interrupted"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0, 1 (could not), 2 (usage) or 130 (interrupted, by Ctrl-C).

    Args:
        argv: arguments; None for those of the process, which then is the command's own, and ends at once on Ctrl-C.
    """
    try:
        with ends_at_once() if argv is None else contextlib.nullcontext():
            return _run(argv)
    except KeyboardInterrupt:  # in the middle of saving, or in a process that is not ours alone
        _fail("interrupted")
        return INTERRUPTED


def _run(argv: Sequence[str] | None) -> int:
    parser = _Parser(
        prog="jaxflow",
        description="Attention flow for JAX: how much each input token can influence a Transformer's decision.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"jaxflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    add_explain(commands)
    add_compare(commands)
    if sys.stdout is None:
        return _fail("standard output is closed, so there is nowhere to print to.")
    show_all_signs()
    try:
        arguments = parser.parse_args(argv)
        text = read_text(parser, arguments) if arguments.command == "explain" else ""
    except SystemExit as stop:  # argparse has printed help (0) or what is wrong (2)
        return int(stop.code or 0)
    except (OSError, ValueError) as error:
        return _fail(str(error))
    try:
        with warnings.catch_warnings():
            _quiet()
            keep_programs()
            _find_device()
            if arguments.command == "explain":
                run_explain(arguments, text)
            else:
                run_compare(arguments)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read us has seen enough, `| head` say
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (
        ValueError,
        TypeError,
        OSError,
        ImportError,
        RuntimeError,
    ) as error:  # the last: JAX has no device, or no memory
        return _fail(str(error))
    except MemoryError as error:
        return _fail(f"there is not enough memory. {error}".rstrip())
    return 0


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints show what an argument holds, and do not obey it."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))


def _quiet() -> None:
    """Keep the notices of libraries off the terminal: this process is ours alone."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.showwarning = _warn


def _warn(message: Warning | str, *place: Any, **more: Any) -> None:
    """Say a warning as an error is said, without the line of code that it comes from."""
    if sys.stderr is not None:
        print(f"jaxflow: {printable(str(message))}", file=sys.stderr)


def _find_device() -> None:
    """Let JAX find its devices, before a computation fails for want of them.

    Raises:
        RuntimeError: there are none of the platform that was asked for.
    """
    import jax

    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:  # an assertion where the platform's plugin is not installed
        asked = os.environ.get("JAX_PLATFORMS", "")
        raise RuntimeError(
            f"JAX finds no device for JAX_PLATFORMS={asked!r}: {error or 'its plugin is not installed'}. Unset it, or set "
            "it to cpu."
        ) from None


def _fail(reason: str) -> int:
    if sys.stderr is not None:
        print(f"jaxflow: {printable(reason)}", file=sys.stderr)
    return 1
