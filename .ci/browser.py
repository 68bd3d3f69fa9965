"""Open a saved page in headless Chromium, with the network cut off, and hold what it shows against the explanation."""

import json
import re
import subprocess
import tempfile
from html import unescape
from pathlib import Path

from jaxflow import explain, load_model

HOSTILE = (
    "[CLS]",
    "<script>document.title='run'</script>",
    '"><img src=x onerror="document.title=1">',
    "日本",
    "שלום",
    "x",
    "y",
)
CHROMIUM = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0",
)  # fmt: skip


def main() -> None:
    model, tokenizer = load_model("agreement")
    inputs = tokenizer(["the keys to the old cabinet"])
    explanation = explain(model, **inputs, tokens=HOSTILE)
    with tempfile.TemporaryDirectory() as directory:
        page = Path(directory) / "page.html"
        explanation.save(page)
        process = subprocess.run(
            [*CHROMIUM, f"--user-data-dir={directory}/profile", "--dump-dom", page.as_uri()],
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
    dom, log = process.stdout, process.stderr
    console = [line for line in log.splitlines() if "CONSOLE" in line]
    assert not console, console
    assert "<title>jaxflow: AgreementEncoder</title>" in dom, "a hostile word changed the title"
    assert "<img" not in dom
    assert "<script" not in dom
    shown = [unescape(word) for word in re.findall(r'<span class="s\d+"[^>]*>(.*?)<small>', dom)]
    assert tuple(shown) == HOSTILE, shown
    scores = [float(score) for score in re.findall(r"<small>([\d.]+)</small>", dom)]
    assert scores == [round(float(score), 3) for score in explanation.attribution.encoder[0]], scores
    print(json.dumps({"words": len(shown), "cells": dom.count("<td class"), "console messages": len(console)}))


if __name__ == "__main__":
    main()
