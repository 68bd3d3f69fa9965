"""An explanation as a page that opens anywhere, and as a cell of a notebook."""

from jaxflow.views.html._methods import methods_html, methods_page
from jaxflow.views.html._page import to_html, to_page

__all__ = ["methods_html", "methods_page", "to_html", "to_page"]
