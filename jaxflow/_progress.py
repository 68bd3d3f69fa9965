"""Progress of long work: a bar with the remaining time, on standard error, only where someone may be looking."""

from __future__ import annotations

from tqdm import tqdm

DELAY = 2.0  # seconds before a bar appears


def progress_bar(total: int, what: str, *, unit: str = "pair", shown: bool) -> tqdm:
    """Make a bar that appears after two seconds, on a terminal alone; with `shown=False` it never does."""
    return tqdm(total=total, desc=what, unit=unit, delay=DELAY, disable=None if shown else True, leave=False)
