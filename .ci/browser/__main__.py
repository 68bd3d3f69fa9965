"""Open pages in headless Chromium with the network cut off, and hold what they show and do against the explanations.

    python .ci/browser
    python .ci/browser --shots shots        # and keep pictures of every page, wide and narrow, light and dark

Needs Debian's chromium, and the extra "browser".
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import examples
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip

READY = "[...document.querySelectorAll('section.jaxflow')].every(one => 'ready' in one.dataset || !one.querySelector('script'))"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shots", type=Path, help="directory for pictures")
    parser.add_argument(
        "pages", nargs="*", metavar="PAGE", help=f"which pages (default: all): {', '.join(examples.PAGES)}"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        for name in arguments.pages or examples.PAGES:
            example = examples.PAGES[name]()
            path = Path(directory) / f"{name}.html"
            path.write_text(example.html, "utf-8")
            report = open_and_check(browser, path, example)
            print(json.dumps({"page": name, **report}), flush=True)
            if arguments.shots:
                take_pictures(browser, path, arguments.shots)
        browser.close()


def open_and_check(browser: Browser, path: Path, example: examples.Example) -> dict[str, object]:
    """Open one page, run the checks that are for it, and find no message, request or serious fault of accessibility."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, java_script_enabled=example.runs_script)
    messages, requests = [], []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on("request", lambda request: requests.append(request.url) if not request.url.startswith("data:") else None)
    start = time.perf_counter()
    page.goto(path.as_uri())
    if example.runs_script:
        page.wait_for_function(READY)
        page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    seconds = time.perf_counter() - start
    for check in example.checks:
        check(page, example)
    faults = accessibility(page) if example.is_read_by_axe else []
    assert not messages, messages
    assert requests == [path.as_uri()], requests
    assert not faults, faults
    page.close()
    done = [check.__name__ for check in example.checks]
    return {"seconds to open": round(seconds, 2), "kB": len(example.html.encode()) // 1000, "checks": done}


def accessibility(page: Page) -> list[str]:
    """List serious faults, in light and in dark."""
    faults = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in ("serious", "critical"):
                where = [node["target"] for node in violation["nodes"][:3]]
                faults.append(
                    f"{scheme}: {violation['id']}: {violation['help']} {where} {violation['nodes'][0]['any'][:1]}"
                )
    page.emulate_media(color_scheme="light")
    return faults


def take_pictures(browser: Browser, path: Path, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    for width in (1280, 400):
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page.goto(path.as_uri())
            page.screenshot(path=directory / f"{path.stem}-{width}-{scheme}.png", full_page=True)
            page.close()


if __name__ == "__main__":
    sys.exit(main())
