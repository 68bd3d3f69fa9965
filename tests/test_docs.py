"""The Python in docs/ runs."""

import re
from pathlib import Path

import pytest

PAGES = [
    page for page in sorted((Path(__file__).parent.parent / "docs").glob("*.md")) if "```python" in page.read_text()
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)
