"""The templates of pages. They escape every value, so that a token stays text whatever letters it has."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jinja2


def render(name: str, **values: Any) -> str:
    """Fill in a template.

    Args:
        name: of the file in `templates`.
        values: by their names in the template. What is HTML already has to be marked so there, by `|safe`.
    """
    return _environment().get_template(name).render(values)


@functools.cache
def _environment() -> jinja2.Environment:
    # Late, since most users of the package never open a page.
    import jinja2

    return jinja2.Environment(
        loader=jinja2.PackageLoader("jaxflow.views.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
