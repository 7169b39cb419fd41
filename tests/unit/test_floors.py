"""The floors of the house, as the table in docs/architecture.md has them: imports go down, and nowhere in a circle.

An import counts wherever it stands: at the top of a file, inside of a function, under TYPE_CHECKING (what is needed
for an annotation ties two files as well), and as a string `promptecho.module:object`. That Python also runs the
`__init__.py` above an imported module does not count: a package's face shows what lies behind it.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
TABLE = "docs/architecture.md"
HOUSE, PLUGIN, BESIDE = "promptecho", "snakemake_executor_plugin_submitit", ("perf", "scripts")
ABOVE_PLUGIN = "plugins/snakemake-executor-plugin-submitit/"
# Names built-in rewards and their like as `module:object`, and finds them when they are asked for, as it does users'.
LOOKS_UP = (
    f"{HOUSE}/config/descriptors.py",
    f"{HOUSE}/config/families.py",
    f"{HOUSE}/config/benchmarks.py",
    f"{HOUSE}/config/judge_kinds.py",
    f"{HOUSE}/config/tracker_kinds.py",
)
HEAVY = {"torch", "transformers", "diffusers", "peft", "deepspeed", "accelerate", "h5py"}
OBJECT = re.compile(rf"({HOUSE}(?:\.\w+)+):\w+")
IN_RULES = re.compile(rf"^\s*(?:from\s+({HOUSE}[\w.]*)\s+import\s+(.+)|import\s+({HOUSE}[\w.]*))", re.MULTILINE)


class Arrow(NamedTuple):
    """`source` imports `target`, both files relative to the root; `early`: whenever `source` itself is imported."""

    source: str
    line: int
    target: str
    early: bool = False


class Found(NamedTuple):
    """What a text imports: dotted names, each with those that may be modules below it."""

    line: int
    module: str
    names: tuple[str, ...] = ()
    level: int = 0
    early: bool = False
    string: bool = False


@functools.cache
def imports_in(text: str) -> list[Found]:
    tree, found = ast.parse(text), []
    early = {id(node) for node in ast.iter_child_nodes(tree)}
    for node in ast.walk(tree):
        top = id(node) in early
        if isinstance(node, ast.Import):
            found += [Found(node.lineno, alias.name, early=top) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = tuple(alias.name for alias in node.names)
            found.append(Found(node.lineno, node.module or "", names, node.level, top))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (match := OBJECT.fullmatch(node.value)):
            found.append(Found(node.lineno, match[1], string=True))
    return found


def module_of(file: str) -> list[str]:
    """The name under which a file is imported, in parts."""
    return file.removeprefix(ABOVE_PLUGIN).removesuffix(".py").removesuffix("/__init__").split("/")


class House:
    """The product's files below `root`, and the arrows between them."""

    def __init__(self, root: Path):
        self.root = root
        folders = (HOUSE, ABOVE_PLUGIN + PLUGIN, *BESIDE)
        self.files = sorted(str(path.relative_to(root)) for name in folders for path in (root / name).rglob("*.py"))
        self.modules = {".".join(module_of(file)): file for file in self.files}
        rules = [path for path in (root / "workflow").rglob("*") if path.suffix in (".smk", ".py")]
        self.rules = sorted(str(path.relative_to(root)) for path in rules)
        self.texts = {file: (root / file).read_text(encoding="utf-8") for file in (*self.files, *self.rules)}
        self.floors = self._floors()  # of a file or folder, from 0, the lowest
        self.arrows = [arrow for file in self.files for arrow in self._arrows(file, imports_in(self.texts[file]))]
        self.of_rules = [arrow for file in self.rules for arrow in self._arrows(file, self._in_rules(file))]

    def _floors(self) -> dict[str, int]:
        section = (self.root / TABLE).read_text(encoding="utf-8").split("\n## Floors\n", 1)[1].split("\n## ", 1)[0]
        rows = [line.split("|") for line in section.splitlines() if line.startswith("|")][2:]
        found: dict[str, int] = {}
        for floor, row in enumerate(reversed(rows)):
            for name in re.findall(r"`([^`]+)`", row[2]):
                assert name not in found, f"{TABLE}: `{name}` stands on two floors; leave one"
                found[name] = floor
        return found

    def _in_rules(self, file: str) -> list[Found]:
        text, found = self.texts[file], []
        for match in IN_RULES.finditer(text):
            line = text.count("\n", 0, match.start(match.lastindex)) + 1
            names = re.findall(r"\w+", re.sub(r" as \w+|#.*", "", match[2] or ""))
            found.append(Found(line, match[1] or match[3], tuple(names)))
        return found

    def _arrows(self, file: str, imports: list[Found]) -> Iterator[Arrow]:
        own = module_of(file)
        package = own if file.endswith("/__init__.py") else own[:-1]
        for one in imports:
            if one.string and file in LOOKS_UP:
                continue
            module = one.module
            if one.level:
                module = ".".join([*package[: len(package) - one.level + 1], *([module] if module else [])])
            elif file.startswith(BESIDE) and ".".join([*package, module]) in self.modules:  # scripts see their folder
                module = ".".join([*package, module])
            below = [name for name in one.names if f"{module}.{name}" in self.modules]
            targets = {f"{module}.{name}" for name in below}
            if len(below) < len(one.names) or not one.names:
                targets.add(module)
            for target in sorted(targets):
                while target and target not in self.modules:
                    target = target.rpartition(".")[0]
                if target and self.modules[target] != file:
                    yield Arrow(file, one.line, self.modules[target], one.early)

    def room(self, file: str) -> str | None:
        """What the table calls it: the file, or the folder that it lies in; "" for what is below all (the version)."""
        name = file.removeprefix(f"{HOUSE}/")
        if name == "__init__.py":
            return ""
        return next((room for room in (name, f"{name.partition('/')[0]}/") if room in self.floors), None)

    def problems(self) -> list[str]:
        """All that is not as it should be, a line each."""
        found = []
        inside = [file for file in self.files if file.startswith(f"{HOUSE}/")]
        rooms = {file: self.room(file) for file in inside}
        floors = {file: -1 if room == "" else self.floors[room] for file, room in rooms.items() if room is not None}
        found += [
            f"{file}: stands on no floor; write its name, or its folder's, into the table of floors in {TABLE}, as low "
            "as what it imports allows"
            for file in inside
            if file not in floors
        ]
        found += [
            f"{TABLE}: no file or folder {HOUSE}/{name}; take it out of the table of floors"
            for name in self.floors.keys() - set(rooms.values())
        ]
        for arrow in self.arrows:
            whence, where = (module_of(file)[0] for file in (arrow.source, arrow.target))
            told = f"{arrow.source}:{arrow.line}: imports {arrow.target}"
            if where in BESIDE and whence != where:
                found.append(f"{told}; nothing imports what lies in {where}/: move what both need into {HOUSE}/")
            elif whence != where and whence in (HOUSE, PLUGIN):
                found.append(f"{told}; {HOUSE} and {PLUGIN} know nothing of each other")
            elif arrow.source in floors and floors[arrow.source] < floors.get(arrow.target, -1):
                found.append(
                    f"{told}, which stands higher ({rooms[arrow.source] or 'the version'} below "
                    f"{rooms[arrow.target]}); move what is needed down, or hand it over from above"
                )
        found += self._of_rules(floors)
        found += [f"{circle}; move what both need into a file below them" for circle in circles(self.arrows)]
        level = [arrow for arrow in self.arrows if floors.get(arrow.source, -2) == floors.get(arrow.target, -3)]
        within = [Arrow(rooms[arrow.source], arrow.line, rooms[arrow.target]) for arrow in level]
        return found + [f"{circle}: rooms of one floor may not need each other" for circle in circles(within)]

    def _of_rules(self, floors: dict[str, int]) -> Iterator[str]:
        """Rules ask all but the commands, which they start, and what they ask is there without torch."""
        early: dict[str, list[str]] = {}
        for arrow in self.arrows:
            if arrow.early:
                early.setdefault(arrow.source, []).append(arrow.target)
        for arrow in self.of_rules:
            told = f"{arrow.source}:{arrow.line}: imports {arrow.target}"
            if floors.get(arrow.target, -1) == max(self.floors.values()):
                yield f"{told}; rules start commands, they do not import them"
            seen, waiting = {arrow.target}, [arrow.target]
            while waiting:
                file = waiting.pop()
                folders = [f"{folder}/__init__.py" for folder in map(str, Path(file).parents) if folder != "."]
                heavy = {one.module.split(".")[0] for one in imports_in(self.texts[file]) if one.early} & HEAVY
                if heavy:
                    yield f"{told}, and with it {file} and {sorted(heavy)[0]}; rules run where that is not installed"
                    break
                more = [one for one in (*early.get(file, ()), *folders) if one in self.texts and one not in seen]
                seen.update(more)
                waiting += more


def circles(arrows: list[Arrow]) -> Iterator[str]:
    """Circles of arrows, as `a -> b -> a`: one arrow of each that is found is left out to find the next."""
    graph: dict[str, set[str]] = {}
    for arrow in arrows:
        if arrow.source != arrow.target:
            graph.setdefault(arrow.source, set()).add(arrow.target)
    while True:
        try:
            TopologicalSorter({source: sorted(targets) for source, targets in sorted(graph.items())}).prepare()
            return
        except CycleError as error:
            circle = error.args[1][:0:-1]
            first = circle.index(min(circle))
            circle = [*circle[first:], *circle[:first], circle[first]]
            yield f"circle: {' -> '.join(circle)}"
            graph[circle[0]].remove(circle[1])


def test_imports_go_down_and_every_file_has_its_floor():
    assert not (found := House(ROOT).problems()), "\n".join(found)


def test_what_breaks_the_floors_is_named_with_file_and_line(tmp_path):
    for name in (HOUSE, ABOVE_PLUGIN + PLUGIN, *BESIDE, "workflow"):
        kept = shutil.ignore_patterns("weights", "__pycache__", "*.json", "*.txt", "*.jsonl")
        shutil.copytree(ROOT / name, tmp_path / name, ignore=kept)
    (tmp_path / "docs").mkdir()
    table = (ROOT / TABLE).read_text(encoding="utf-8")
    (tmp_path / TABLE).write_text(table.replace("`cluster/`", "`cluster/`, `gone.py`"), encoding="utf-8")

    def write(file: str, text: str) -> int:
        """Append to a file; the number of the last line."""
        path = tmp_path / file
        whole = (path.read_text(encoding="utf-8") if path.exists() else "") + text
        path.write_text(whole, encoding="utf-8")
        return whole.count("\n")

    up = write(f"{HOUSE}/config/fields.py", "\n\ndef late():\n    from promptecho.train import loop\n")
    typed = write(f"{HOUSE}/errors.py", "\nif TYPE_CHECKING:\n    import promptecho.config.models\n")
    string = write(f"{HOUSE}/models/hub_access.py", '\nNAMED = "promptecho.judges.ask:ask_all"\n')
    looked_up = write(LOOKS_UP[0], '\nNAMED = "promptecho.judges.ask:ask_all"\n')
    beside = write(f"{HOUSE}/generate.py", "\nfrom perf import alone\n")
    foreign = write(f"{ABOVE_PLUGIN}{PLUGIN}/marks.py", "\nfrom promptecho import files\n")
    write(f"{HOUSE}/new.py", "")
    write(f"{HOUSE}/seeds.py", "\nfrom promptecho.progress import progress\n")
    write(f"{HOUSE}/progress.py", "\n\ndef late():\n    from . import seeds\n")
    write(f"{HOUSE}/judges/keys.py", "\nfrom promptecho.captions.store import Row\n")
    write(f"{HOUSE}/captions/split.py", "\nfrom promptecho.judges.errors import JudgeError\n")
    command = write("workflow/rules/train.smk", "\nfrom promptecho.commands import train\n")
    heavy = write("workflow/rules/score.smk", "\nfrom promptecho.t2i.lora import add_lora\n")

    found = House(tmp_path).problems()
    for expected in (
        f"{HOUSE}/config/fields.py:{up}: imports {HOUSE}/train/loop.py, which stands higher (config/ below train/)",
        f"{HOUSE}/errors.py:{typed}: imports {HOUSE}/config/models.py, which stands higher",
        f"{HOUSE}/models/hub_access.py:{string}: imports {HOUSE}/judges/ask.py, which stands higher",
        f"{HOUSE}/generate.py:{beside}: imports perf/alone.py; nothing imports what lies in perf/",
        f"{PLUGIN}/marks.py:{foreign}: imports {HOUSE}/files.py; {HOUSE} and {PLUGIN} know nothing of each other",
        f"{HOUSE}/new.py: stands on no floor; write its name, or its folder's, into the table",
        f"{TABLE}: no file or folder {HOUSE}/gone.py; take it out",
        f"circle: {HOUSE}/progress.py -> {HOUSE}/seeds.py -> {HOUSE}/progress.py; move what both need",
        "circle: captions/ -> judges/ -> captions/: rooms of one floor",
        f"workflow/rules/train.smk:{command}: imports {HOUSE}/commands/train.py; rules start commands",
        f"workflow/rules/score.smk:{heavy}: imports {HOUSE}/t2i/lora.py, and with it {HOUSE}/t2i/lora.py and ",
    ):
        told = [line for line in found if expected in line]
        assert told, f"nothing says {expected!r} of:\n" + "\n".join(found)
    assert not [line for line in found if f"{LOOKS_UP[0]}:{looked_up}" in line]
