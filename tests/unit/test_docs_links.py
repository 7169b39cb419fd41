"""Documentation points at what is there."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PLACES = ("", "docs", "config", "profiles", "results", "tests", "perf", "envs", "promptecho", "tests/slurm", "perf/gpu")
EXECUTOR = "plugins/snakemake-executor-plugin-submitit"
PLACES += ("docs/guides", "examples/*", EXECUTOR, f"{EXECUTOR}/docs")
PAGES = sorted(page for place in PLACES for page in ROOT.glob(f"{place}/*.md".lstrip("/")))
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Below results/ only its own page is in the repository: tables are named by the experiment that makes them.
NAMED = re.compile(r"\b(?:(?:docs|profiles|config|perf)/[\w/-]+|results/\w+)\.md\b")
FOLDERS = ("promptecho", "config", "profiles", "workflow", "plugins", "scripts", "perf")
SOURCES = sorted(
    path
    for place in FOLDERS
    for path in (ROOT / place).rglob("*")
    if path.suffix in (".py", ".yaml", ".yml", ".smk", ".md", ".json") and path.stat().st_size < 1 << 20
)


def anchors(page: Path) -> set[str]:
    """The names that headings get: lower case, hyphens for spaces, no punctuation."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    dead = []
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = page.parent / unquote(target) if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            dead.append(link)
    assert not dead


def test_pages_that_files_name_are_there():
    named = {
        (name, str(path.relative_to(ROOT)))
        for path in SOURCES
        for name in NAMED.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 10
    places = (ROOT, ROOT / EXECUTOR)
    assert not sorted((name, by) for name, by in named if not any((place / name).exists() for place in places))


def test_every_page_of_docs_is_linked_from_the_readme_or_its_pages():
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in LINK.findall(page.read_text(encoding="utf-8"))
    }
    assert not [page.name for page in (ROOT / "docs").glob("*.md") if page.resolve() not in linked]
