"""Hooks of MkDocs that make the site of docs/, notebooks/, the changelog and the model cards.

- Notebooks become pages, with outputs if they were executed (`python .ci/notebooks.py` writes build/notebooks).
- Links out of docs/, which are for readers of the repository, lead to the pages that are made of their targets.
- Equations become MathML, which needs no script. Inline code that is a public name becomes a link to the reference.
"""

from __future__ import annotations

import base64
import functools
import html
import inspect
import json
import re
from pathlib import Path
from typing import Any

import latex2mathml.converter
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import jaxflow

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS, EXECUTED, ZOO = ROOT / "notebooks", ROOT / "build" / "notebooks", ROOT / "jaxflow" / "zoo"
# The order of notebooks in the navigation; others follow, by name.
ORDER = (
    "quickstart",
    "what_the_numbers_mean",
    "classification_token",
    "reading_and_writing",
    "dialogue",
    "temporal_logic",
    "training",
    "train_with_flow",
    "your_own_model",
)
NAMESPACES = tuple(name for name in jaxflow.__all__ if inspect.ismodule(getattr(jaxflow, name)))
SHOWN: dict[str, str] = {}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the notebooks and the model cards into the navigation."""
    found = {
        "Notebooks": [{_title(path): f"notebooks/{path.stem}.md"} for path in _notebooks()],
        "Models that ship": [{card.parent.name.replace("_", "-"): f"cards/{card.parent.name}.md"} for card in _cards()],
    }

    def fill(entries: list[Any]) -> None:
        for entry in entries:
            for name, below in entry.items() if isinstance(entry, dict) else ():
                if name in found:
                    entry[name] = found[name]
                elif isinstance(below, list):
                    fill(below)

    fill(config.nav or [])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside docs/."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog))
    for card in _cards():
        content = card.read_text(encoding="utf-8")
        files.append(File.generated(config, f"cards/{card.parent.name}.md", content=content))
    for path in _notebooks():
        body, pictures = _notebook_page(path)
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=body))
        for name, data in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=data))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links out of docs/ lead to the pages that were made of their targets; show explanations."""
    up = "../" * page.file.src_uri.count("/")
    moved = (
        (r"\]\((?:\.\./)*notebooks/(\w+)\.ipynb", rf"]({up}notebooks/\1.md"),
        (r"\]\((?:\.\./)*jaxflow/zoo/(\w+)/README\.md", rf"]({up}cards/\1.md"),
        (r"\]\((?:\.\./)+CHANGELOG\.md", rf"]({up}changelog.md"),
        (r"\]\((?:\.\./)*docs/", f"]({up}"),
    )
    for outside, inside in moved:
        markdown = re.sub(outside, inside, markdown)
    return re.sub(r"<!-- shown: (.*) -->", lambda text: _shown("explanation", _explained(text[1])), markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn equations into MathML, and public names into links."""
    content = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', _mathml, content, flags=re.DOTALL)
    content = _linked(content, page)
    return re.sub(r'(?<=<div class="output">)\{(\w+)\}', lambda place: SHOWN[place[1]], content)


def _explained(text: str) -> str:
    """Show an explanation as a notebook does."""
    model, tokenizer = jaxflow.load_model("agreement")
    return jaxflow.explain(model, text, tokenizer=tokenizer)._repr_html_()


def _shown(name: str, shown: str) -> str:
    """Return a placeholder for HTML, which Markdown would change; `on_page_content` replaces it."""
    SHOWN[name] = shown
    return f'<div class="output">{{{name}}}</div>'


def _notebooks() -> list[Path]:
    """Return the notebooks in the order in which they are read."""

    def order(path: Path) -> tuple[int, str]:
        return (ORDER.index(path.stem) if path.stem in ORDER else len(ORDER), path.stem)

    return sorted(NOTEBOOKS.glob("*.ipynb"), key=order)


def _cards() -> list[Path]:
    """Return the cards of the models that ship."""
    return sorted(ZOO.glob("*/README.md"))


def _title(path: Path) -> str:
    """Return a notebook's first heading."""
    first = json.loads(path.read_text(encoding="utf-8"))["cells"][0]
    return "".join(first["source"]).splitlines()[0].lstrip("# ")


def _notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Make Markdown of a notebook, and its pictures by their names."""
    executed = EXECUTED / path.name
    cells = json.loads((executed if executed.exists() else path).read_text(encoding="utf-8"))["cells"]
    body: list[str] = []
    pictures: dict[str, bytes] = {}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        body.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for part, output in enumerate(cell.get("outputs", ())):
            name = f"{path.stem}_{number}_{part}"
            body.append(_shown(name, _output(output, name, pictures)))
    return "\n\n".join(body) + "\n", pictures


def _output(output: dict[str, Any], name: str, pictures: dict[str, bytes]) -> str:
    """Make HTML of an output of a cell; add its pictures to `pictures`."""
    data = output.get("data", {"text/plain": output.get("text", "")})
    shown = {kind: value if isinstance(value, str) else "".join(value) for kind, value in data.items()}
    if "text/html" in shown:
        return shown["text/html"]
    if "image/svg+xml" in shown:
        pictures[f"{name}.svg"] = shown["image/svg+xml"].encode()
    elif "image/png" in shown:
        pictures[f"{name}.png"] = base64.b64decode(shown["image/png"])
    else:
        return f"<pre><code>{html.escape(shown['text/plain'].rstrip())}</code></pre>"
    (file,) = (file for file in pictures if file.startswith(f"{name}."))
    return f'<img src="{file}" alt="{html.escape(shown.get("text/plain", "figure"))}">'


def _mathml(found: re.Match[str]) -> str:
    """Make MathML of an equation that arithmatex found."""
    equation = html.unescape(found[2]).strip()
    display = "block" if equation.startswith("\\[") else "inline"
    return latex2mathml.converter.convert(equation[2:-2].strip(), display=display)


def _linked(content: str, page: Page) -> str:
    """Link inline code that is a public name to the reference, except in links, headings and blocks of code."""
    up = "../" * page.file.src_uri.count("/")
    parts = re.split(r"(<(a|pre|h\d|svg|style)\b.*?</\2>)", content, flags=re.DOTALL)
    for i in range(0, len(parts), 3):  # between them: a part that stays, and its tag
        parts[i] = re.sub(
            rf"<code>(?:(?:jf|jaxflow)\.)?(?:(?:{'|'.join(NAMESPACES)})\.)?(\w+)</code>",
            lambda code: (
                f'<a class="name" href="{up}{where}">{code[0]}</a>' if (where := _places().get(code[1])) else code[0]
            ),
            parts[i],
        )
    return "".join(part for i, part in enumerate(parts) if i % 3 != 2)


@functools.cache
def _places() -> dict[str, str]:
    """Return the place in the site where each public name is described."""
    places = {}
    for path in sorted((ROOT / "docs" / "reference").glob("*.md")):
        for name in re.findall(r"^::: (jaxflow[.\w]*)$", path.read_text(encoding="utf-8"), re.MULTILINE):
            places[name.rsplit(".", 1)[1]] = f"reference/{path.stem}.html#{name}"
    return places
