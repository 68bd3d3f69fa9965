"""An explanation as a page that opens anywhere, and as a cell of a notebook."""

from jaxflow.views.html._compare import compare_html, compare_page
from jaxflow.views.html._page import to_html, to_page

__all__ = ["compare_html", "compare_page", "to_html", "to_page"]
