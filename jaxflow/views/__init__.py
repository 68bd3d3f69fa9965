"""Explanation -> what people look at. Views compute nothing: the numbers they draw are the explanation's."""

from jaxflow.views._terminal import InTerminal, has_colours
from jaxflow.views._text import to_text
from jaxflow.views._tree import render_attribution, render_tree

__all__ = ["InTerminal", "has_colours", "render_attribution", "render_tree", "to_text"]
