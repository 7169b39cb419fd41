"""The site of all pages: built as `make site` builds it, with links that lead somewhere and nothing from elsewhere.

Where Chromium is, a page is also opened in it, behind a proxy that notes what it asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from doc_examples import PAGES, ROOT

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "video": "src"}


class Page(HTMLParser):
    """Links, names and what is loaded of one page."""

    def __init__(self, text: str):
        super().__init__()
        self.links: list[str] = []
        self.names: set[str] = set()
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.names |= {found["id"]} if found.get("id") else set()
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif found.get(LOADED.get(tag, "")):
            self.loaded.append(found[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    (line,) = re.findall(r"^\t@\$\(BIN\)/python (-m sphinx .+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    words = line.replace("build/site-doctrees", str(folder / "doctrees")).replace("build/site", str(folder / "html"))
    proxy = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, *words.split()], cwd=ROOT, env=os.environ | proxy, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "html"


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    return {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}


def test_every_page_is_in_it(site):
    missing = [page for page in PAGES if not (site / page).with_suffix(".html").is_file()]
    assert not missing, "docs/site/conf.py does not find them"
    assert (site / "index.html").read_bytes() == (site / "README.html").read_bytes()


def test_links_lead_to_pages_and_headings(pages):
    dead = set()
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            target, _, name = link.partition("#")
            there = (path.parent / unquote(target)).resolve() if target else path
            if not there.exists() or (name and there in pages and unquote(name) not in pages[there].names):
                dead.add((path.name, link))
    assert not dead


def test_nothing_is_loaded_from_elsewhere(site, pages):
    assert not {link for page in pages.values() for link in page.loaded if re.match(r"([a-z]+:)?//", link)}
    for style in site.rglob("*.css"):
        assert not re.findall(r"url\(\s*[\"']?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style


def test_modules_are_pages_with_signatures_and_sections(site):
    text = (site / "promptecho/intervals.html").read_text(encoding="utf-8")
    shown = re.sub(r"<[^>]+>", "", text)
    assert "def wilson_interval(successes: int, n: int, confidence: float = CONFIDENCE)" in shown
    assert re.search(r"Raises:\s+DataError: n is 0 or successes lies outside 0..n", shown)
    assert "n_prompts: Any" in shown  # a field
    assert "_excess" not in shown and "import numpy" not in shown
    assert "come from --config; without it" in (site / "docs/commands.html").read_text(encoding="utf-8")


@pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: `make test-browser` installs Chromium where it can")
def test_a_browser_asks_for_nothing(site, tmp_path):
    asked: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as proxy:

        def listen() -> None:
            while True:
                try:
                    connection, _ = proxy.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(1000).split(b"\r\n")[0])

        threading.Thread(target=listen, daemon=True).start()
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
        options += ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
        options += [f"--proxy-server=127.0.0.1:{proxy.getsockname()[1]}", "--proxy-bypass-list=<-loopback>"]
        options += [f"--user-data-dir={tmp_path / 'browser'}"]
        page = (site / "index.html").as_uri()
        done = subprocess.run([BROWSER, *options, page], capture_output=True, text=True, timeout=300, check=True)
    assert "PromptEcho suite" in done.stdout
    files = [path.read_bytes() for pattern in ("*.html", "*.js", "*.css") for path in site.rglob(pattern)]
    hosts = {host for text in files for host in re.findall(rb"https?://([\w.-]+)", text)}
    assert len(hosts) > 3  # links; what is asked of other hosts, the browser asks for itself
    assert not [line for line in asked if any(host in line for host in hosts)]
