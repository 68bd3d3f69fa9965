"""Hold the built site against its promises: no page fetches anything from elsewhere, and every link within leads somewhere."""

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SITE = Path("build/site")
FETCHED = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "link": "href",
    "object": "data",
}


class Reader(HTMLParser):
    """Keeps what a page fetches, where it links to, and its anchors."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep what a tag says."""
        values = dict(attrs)
        self.anchors |= {value for name in ("id", "name") if (value := values.get(name))}
        if tag == "a" and values.get("href"):
            self.links.append(values["href"] or "")
        elif tag in FETCHED and values.get(FETCHED[tag]) and values.get("rel") not in ("prev", "next", "canonical"):
            self.fetched.append(values[FETCHED[tag]] or "")


def main() -> None:
    pages = {}
    for path in sorted(SITE.rglob("*.html")):
        pages[path] = Reader()
        pages[path].feed(path.read_text(encoding="utf-8"))
    known = {path.resolve(): page for path, page in pages.items()}
    wrong = []
    for path, page in pages.items():
        if path.name == "404.html":  # served from anywhere, so its links are absolute
            continue
        for address in (*page.fetched, *page.links):
            there = urlsplit(address)
            if there.scheme or there.netloc:
                if address in page.fetched and there.scheme != "data":
                    wrong.append(f"{path} fetches {address}")
                continue
            target = (path.parent / unquote(there.path)).resolve() if there.path else path.resolve()
            target = target / "index.html" if target.is_dir() else target
            if not target.exists():
                wrong.append(f"{path} leads to {address}, which is not there")
            elif there.fragment and target in known and unquote(there.fragment) not in known[target].anchors:
                wrong.append(f"{path} leads to {address}, and there is no such anchor")
    for style in SITE.rglob("*.css"):
        text = style.read_text(encoding="utf-8")
        wrong += [f"{style} fetches from elsewhere" for scheme in ("url(http", "url(//", "@import") if scheme in text]
    print(f"{len(pages)} pages, {sum(len(page.links) for page in pages.values())} links")
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
