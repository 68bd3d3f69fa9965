"""Make the pictures of docs/gallery.md by running its code, take screenshots of its pages, and print what each file weighs.

    python docs/gallery.py

Figures and screenshots are kept in the repository; pages are not, but belong to the site. Screenshots need Chromium, and are left
as they are where there is none.
"""

import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import matplotlib
from PIL import Image

from jaxflow import zoo

PAGE = Path(__file__).with_suffix(".md")
PICTURES = Path(__file__).with_suffix("")
WIDTH, HEIGHT = 960, 920  # of a screenshot, in pixels
COLOURS = 96  # of a screenshot, to keep it small in a README
CHROMIUM = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", f"--window-size={WIDTH},{HEIGHT}",
)  # fmt: skip


def main() -> None:
    """Run the page's code where pictures are kept."""
    start = time.perf_counter()
    text = PAGE.read_text(encoding="utf-8")
    os.chdir(PICTURES)
    # The same pictures give the same files, those of a figure of one's own too.
    os.environ["SOURCE_DATE_EPOCH"] = "0"
    matplotlib.rcParams["svg.hashsalt"] = "jaxflow"
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    for drawing in Path().glob("*.svg"):
        drawing.write_text(lighten(drawing.read_text("utf-8")), "utf-8")
    chromium = shutil.which("chromium")
    for page in sorted(Path().glob("*.html")):
        if chromium is not None and f"({PICTURES.name}/{page.stem}.png)" in text:
            take_screenshot(chromium, page)
    print(f"| {PICTURES.name}/ | kB |\n|---|---:|")
    for path in sorted(Path().iterdir()):
        print(f"| {path.name} | {path.stat().st_size / 1000:.1f} |")
    missing = [name for name in zoo.names() if f'load_model("{name}")' not in text]
    print(f"{time.perf_counter() - start:.0f} s" + (f"; no picture of {', '.join(missing)}" if missing else ""))


def lighten(svg: str) -> str:
    """Leave out of a drawing what nobody sees: blanks between tags, and the fonts of a server that rich names."""
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    return re.sub(r"\s*\n\s*", "\n", re.sub(r">\s+<", "><", svg))


def take_screenshot(chromium: str, page: Path) -> None:
    """Save a picture of a page beside it."""
    picture = page.with_suffix(".png").resolve()
    with tempfile.TemporaryDirectory() as profile:
        command = [
            chromium,
            *CHROMIUM,
            f"--user-data-dir={profile}",
            f"--screenshot={picture}",
            page.resolve().as_uri(),
        ]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
    with Image.open(picture) as image:
        # Octrees keep the colours of small areas, such as a legend's keys.
        reduced = image.convert("RGB").quantize(COLOURS, method=Image.Quantize.FASTOCTREE)
    reduced.save(picture, optimize=True)


if __name__ == "__main__":
    main()
