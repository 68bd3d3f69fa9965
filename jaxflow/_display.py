"""How results show themselves. The views come last of all rooms, and this is the only way to them from the rooms before.

Each function imports its view when something is looked at, so that nothing pays for views that nobody opens.
"""

from __future__ import annotations

from typing import Any


def page(explanation: Any) -> str:
    """Return an explanation as a whole HTML document."""
    from jaxflow.views.html import to_page

    return to_page(explanation)


def cell(explanation: Any) -> str:
    """Return an explanation as HTML for a cell of a notebook."""
    from jaxflow.views.html import to_html

    return to_html(explanation)


def coloured(explanation: Any) -> Any:
    """Return what rich prints of an explanation on a terminal with colours."""
    from jaxflow.views import InTerminal

    return InTerminal(explanation)


def plain(explanation: Any) -> str:
    """Return an explanation as plain text."""
    from jaxflow.views import to_text

    return to_text(explanation)


def arrays(node: Any, path: str | None, subtree_renderer: Any, *, axes: tuple[str, ...]) -> Any:
    """Render a dataclass of arrays for treescope, with heatmaps; `axes` names the arrays' last axes."""
    from jaxflow.views import render_tree

    return render_tree(node, path, subtree_renderer, axes=axes)


def scores(attribution: Any, path: str | None, subtree_renderer: Any) -> Any:
    """Render an attribution for treescope."""
    from jaxflow.views import render_attribution

    return render_attribution(attribution, path, subtree_renderer)
