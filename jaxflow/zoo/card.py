"""What every model card has: the section on its training, and tables. A card's figures are measured by its run."""

from collections.abc import Sequence
from dataclasses import dataclass

from jaxflow.zoo.training import Settings


@dataclass(frozen=True)
class Run:
    """What a training run has to say about itself.

    Attributes:
        command: As typed.
        settings: How it trained.
        examples: What its examples are called, in the plural.
        seconds: Wall time of the training, with the generation of its data.
        machine: What it ran on.
        versions: Of the packages, jaxflow among them.
        n_parameters: In the model.
        n_bytes: Size of the weights file.
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
    """Write how a model was trained, in Markdown."""
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
    """Write a table in Markdown: names in the first column, numbers in the others."""
    rule = "|".join(["---", *["---:"] * (len(header) - 1)])
    return "\n".join(f"| {line} |" for line in [" | ".join(header), rule, *(" | ".join(row) for row in rows)])


def percent(share: float | None) -> str:
    """Write a share in percent; nothing for None."""
    return "" if share is None else f"{100 * share:.2f} %"
