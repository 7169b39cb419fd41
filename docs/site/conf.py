"""The site: the pages of this checkout, read where they lie and built by `make site` without a network.

The source folder is the whole checkout, so that a link from page to page is the same on a code host and here. Pages
know nothing of the site: their order is in CONTENTS, and the modules of the reference are those that docs/reference.md
names.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))  # mathml.py and python_page.py

EXECUTOR = "plugins/snakemake-executor-plugin-submitit"
REFERENCE = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
MODULES = [
    (Path("docs") / link).as_posix().replace("docs/../", "") for link in re.findall(r"\]\((\.\./\S+\.py)\)", REFERENCE)
]
GUIDES = ("first-experiment", "researcher", "operator", "evaluator", "contributor", "faq")
# Below README.md, the first page. Every page is in one list, and a page in none of them ends the build.
CONTENTS = {
    "Guides": sorted(
        (f"docs/guides/{path.stem}" for path in (ROOT / "docs/guides").glob("*.md")),
        key=lambda page: (GUIDES.index(page.split("/")[-1]) if page.split("/")[-1] in GUIDES else len(GUIDES), page),
    ),
    "Use it": [
        "config/README", "profiles/README", "docs/environments", "results/README", "docs/doctor", "docs/plan",
        "docs/models", "docs/images", "docs/captioning", "docs/families", "docs/editing", "docs/video",
        "docs/rewards", "docs/training", "docs/watching", "docs/trackers", "docs/status", "docs/reruns", "docs/publish",
    ],
    "Judge results": [
        "docs/tables", "docs/browse", "docs/benchmarks", "docs/benchmarks-geneval", "docs/judges", "docs/words",
        "docs/reward-audit", "docs/text-rendering", "docs/coverage",
    ],
    "What was measured": ["docs/shapes", "docs/results-shapes", "docs/performance", "perf/README"],
    "On Slurm, inside other workflows": [
        f"{EXECUTOR}/README", f"{EXECUTOR}/docs/intro", f"{EXECUTOR}/docs/further", f"{EXECUTOR}/CHANGELOG",
        "docs/module",
    ],
    "Reference": ["docs/reference", "docs/commands", "docs/formulas"],
    "Change it": [
        "docs/extending", "examples/reward/README", "examples/reward_clip/README", "examples/family/README",
        "examples/reward_server/README", "examples/benchmark/README", "examples/judge/README",
        "docs/architecture", "CONTRIBUTING", "tests/README",
        "tests/data/README", "CHANGELOG",
    ],
}  # fmt: skip
# In the lists, where a page's own heading says too little beside others.
NAMES = {
    "perf/README": "What speed is measured with", f"{EXECUTOR}/README": "The executor",
    f"{EXECUTOR}/CHANGELOG": "The executor's changelog", "examples/reward/README": "Example: a reward",
    "examples/reward_clip/README": "Example: a reward without a VLM", "examples/family/README": "Example: a family",
    "examples/reward_server/README": "Example: a server of rewards",
    "examples/benchmark/README": "Example: a benchmark", "examples/judge/README": "Example: a judge",
}  # fmt: skip
# Pages that begin without a heading, because another site puts one there: Snakemake's catalog of plugins.
TITLES = {f"{EXECUTOR}/docs/intro": "The executor in short", f"{EXECUTOR}/docs/further": "The executor in detail"}

project = "PromptEcho suite"
author = "The PromptEcho suite authors"
version = re.search(r'__version__ = "(.+)"', (ROOT / "promptecho/__init__.py").read_text())[1]
extensions = ["myst_parser", "mathml", "python_page"]
root_doc = "README"
include_patterns = [f"{page}.md" for pages in CONTENTS.values() for page in pages]
include_patterns += ["*.md", "docs/**/*.md", "*/README.md", "examples/*/README.md", "plugins/*/*.md", *MODULES]
include_patterns += ["examples/benchmark/tint_asked.py"]  # a page links to it
# Folders without pages are not looked into: some hold millions of images.
_FOLDERS = {page.split("/")[0] for pages in CONTENTS.values() for page in pages} | {"promptecho"}
exclude_patterns = [path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in _FOLDERS]
exclude_patterns += ["results/*/*", "**/.*"]
myst_enable_extensions = ["dollarmath"]
myst_fence_as_directive = ["math"]
myst_heading_anchors = 6  # the names that a code host gives to headings
smartquotes = False  # `--config` in a sentence is no dash
html_theme = "furo"
html_title = project
html_static_path = [str(HERE / "site.css")]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_math_renderer = "mathml"
pygments_style = "default"


def _lists(pages: list[str], caption: str = "") -> str:
    lines = ["```{toctree}", ":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", *lines, *map(_entry, pages), "```", ""])


def _entry(page: str) -> str:
    return f"{NAMES[page]} </{page}>" if page in NAMES else f"/{page}"


def add_lists(app, docname: str, content: list[str]) -> None:
    """What is below a page, and headings that pages leave to another site: code hosts would show this as it is."""
    if docname in TITLES:
        content[0] = f"# {TITLES[docname]}\n\n{content[0]}"
    if docname == root_doc:
        content[0] += "".join(_lists(pages, caption) for caption, pages in CONTENTS.items() if pages)
    if docname == "docs/reference":
        content[0] += _lists([module.removesuffix(".py") for module in MODULES])


def front_page(app, exception: Exception | None) -> None:
    """A folder that is opened shows index.html."""
    if exception is None and app.builder.name == "html":
        shutil.copyfile(app.outdir / f"{root_doc}.html", app.outdir / "index.html")


def setup(app) -> None:
    app.connect("source-read", add_lists)
    app.connect("build-finished", front_page)
