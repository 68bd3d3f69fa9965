"""The metric writers of training loops, CLU's and TensorBoard's, as one function. None of them is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def adapt_writer(writer: Any, *, images: bool) -> Callable[[int, dict, dict], None]:
    """Adapt a CLU or TensorBoard writer to `write(step, scalars, images)`.

    Raises:
        ValueError: it has the functions of neither.
    """

    def can(*methods: str) -> bool:
        return all(callable(getattr(writer, method, None)) for method in methods)

    if can("write_scalars", *(["write_images"] if images else [])):

        def write(step: int, scalars: dict, drawn: dict) -> None:
            writer.write_scalars(step, scalars)
            if drawn:
                writer.write_images(step, drawn)

        return write
    if can("add_scalar", *(["add_images"] if images else [])):

        def add(step: int, scalars: dict, drawn: dict) -> None:
            for name, value in scalars.items():
                writer.add_scalar(name, value, step)
            for name, pixels in drawn.items():
                writer.add_images(name, pixels, step, dataformats="NHWC")

        return add
    raise ValueError(
        f"writer is a {type(writer).__name__}; expected write_scalars(step, scalars) and write_images(step, images), as clu's "
        "MetricWriter has them, or add_scalar and add_images of a SummaryWriter. Of a writer without images, images=0 asks for "
        "none."
    )
