"""The parts that all model cards share: the section on the training, and tables."""

from collections.abc import Sequence
from dataclasses import dataclass

from zoo.training import Settings


@dataclass(frozen=True)
class Run:
    """What the card reports of a training run.

    Attributes:
        command: The command line.
        settings: Its settings.
        examples: The word for its examples, in the plural.
        seconds: Wall time of the training, with the generation of its data.
        machine: The machine, in words.
        versions: Of the packages, by name.
        n_parameters: Parameters of the model.
        n_bytes: Size of the weights file in bytes.
    """

    command: str
    settings: Settings
    examples: str
    seconds: float
    machine: str
    versions: dict[str, str]
    n_parameters: int
    n_bytes: int


def training_section(run: Run) -> str:
    """Write the section on the training, in Markdown."""
    settings = run.settings
    rate = f"learning rate {settings.learning_rate:g} after a warm-up, cosine to 0"
    return f"""\
## Training
    {run.command}

| | |
|---|---|
| seed | {settings.seed} |
| steps | {settings.steps} |
| {run.examples} | {settings.n_examples:,} |
| batch | {settings.batch_size} |
| optimiser | AdamW, {rate}, weight decay {settings.weight_decay:g} |
| time | {run.seconds:.0f} s |
| machine | {run.machine} |
| versions | {", ".join(f"{name} {version}" for name, version in run.versions.items())} |
"""


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table in Markdown: the first column left-aligned, the others right-aligned."""
    rule = "|".join(["---", *["---:"] * (len(header) - 1)])
    return "\n".join(f"| {line} |" for line in [" | ".join(header), rule, *(" | ".join(row) for row in rows)])


def percent(share: float | None) -> str:
    """Write a share in percent; nothing for None."""
    return "" if share is None else f"{100 * share:.2f} %"
