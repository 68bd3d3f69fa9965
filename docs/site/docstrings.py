"""Shows the examples of docstrings as code: Griffe knows the section `Examples`; here it is `Example`, or has no heading."""

import re
from typing import Any

import griffe


class Examples(griffe.Extension):
    """Puts the examples of each docstring below the heading that Griffe knows."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = with_heading(obj.docstring.value)


def with_heading(docstring: str) -> str:
    """Name the section of examples `Examples`; begin one where a paragraph begins with a prompt."""
    text = re.sub(r"^Example:$", "Examples:", docstring, flags=re.MULTILINE)
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        "Examples:\n" + "\n".join(f"    {line}" for line in paragraph.split("\n"))
        if paragraph.startswith(">>> ")
        else paragraph
        for paragraph in paragraphs
    )
