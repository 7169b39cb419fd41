"""The commands that pages of documentation show, as a shell would get them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer

from promptecho.cli import app

ROOT = Path(__file__).resolve().parent.parent.parent
PLACES = ("*.md", "*/README.md", "docs/**/*.md", "examples/*/README.md", "plugins/*/*.md", "plugins/*/docs/*.md")
PLACES += ("tests/data/README.md",)
# What the site is made of. Changelogs tell of commands of earlier versions, too.
PAGES = [str(page.relative_to(ROOT)) for place in PLACES for page in sorted(ROOT.glob(place))]
# Folders such as .pytest_cache have a README of their own.
PAGES = [page for page in PAGES if Path(page).name != "CHANGELOG.md" and not page.startswith(".")]
# Blocks in `bash` hold commands only; other blocks hold output and files too, among them lines that begin so.
PROGRAMS = ("promptecho", "snakemake", "make", "python")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^ {4,}((?:promptecho|snakemake|make|python) .+)$", re.MULTILINE)
SPAN = re.compile(r"`((?:promptecho|snakemake|make|python) [^`]+)`")


@dataclass(frozen=True)
class Example:
    page: str
    line: str  # whole, without prompt and comment
    inline: bool = False  # within a sentence: may be a part of a command

    @property
    def words(self) -> list[str]:
        return shlex.split(self.line)

    @property
    def program(self) -> str:
        """The first word that is no assignment of a variable."""
        return next((word for word in self.words if not re.match(r"[A-Z_]+=", word)), "")

    @property
    def arguments(self) -> list[str]:
        return self.words[self.words.index(self.program) + 1 :]


def examples_of(page: str, text: str) -> Iterator[Example]:
    for language, block in FENCE.findall(text):
        if language not in ("bash", "sh", "console", ""):
            continue
        for line in re.sub(r" *\\\n\s*", " ", block).splitlines():
            line = re.sub(r"\s+#\s.*$", "", line.removeprefix("$ ")).strip()
            # A copy of an example's folder: in one process with the example itself its module would be hidden.
            line = re.sub(r"(?<=[ =])my-(benchmark|family|judge|reward)\b", r"examples/\1", line)
            first = line.split(" ", 1)[0]
            if line and not line.startswith("#") and (language or first in PROGRAMS):
                yield Example(page, line)
    for line in INDENTED.findall(FENCE.sub("", text)):
        yield Example(page, re.sub(r"\s+#\s.*$", "", line).strip())
    for span in SPAN.findall(FENCE.sub("", text)):
        yield Example(page, " ".join(span.split()), inline=True)


def all_examples() -> list[Example]:
    return [one for page in PAGES for one in examples_of(page, (ROOT / page).read_text(encoding="utf-8"))]


def parse(line: str, *, partial: bool) -> None:
    """Let the real parser read a command of promptecho; of a part of one, its sub-command and options must exist.

    Raises:
        AssertionError: it does not take it.
    """
    words = shlex.split(line)[1:]
    context = GROUP.make_context("promptecho", list(words) if not partial else [], resilient_parsing=partial)
    command = context.command
    if partial:
        names = [word for word in words if not word.startswith("-")]
        while hasattr(command, "commands") and names and names[0] in command.commands:
            command = command.commands[names.pop(0)]
        # With options alone, such as `promptecho --version`, these are those of all commands together.
        assert command is not GROUP or all(word.startswith("-") for word in words), line
        known = {name for option in command.params for name in option.opts} | {"--help", "-h"}
        assert not [word for word in words if word.startswith("-") and word not in known], line
        return
    while hasattr(context.command, "commands"):
        rest = [*context._protected_args, *context.args]
        if not rest and context.command.invoke_without_command:
            return
        name, command, rest = context.command.resolve_command(context, rest)
        try:
            context = command.make_context(name, rest, parent=context)
        except typer.Exit:  # --help
            return


GROUP = typer.main.get_command(app)
