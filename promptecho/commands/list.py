"""`promptecho list`: what can be chosen by name in an experiment file, and who brings it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from promptecho.plugins import Plugins


def register(app: typer.Typer) -> None:
    listed = typer.Typer(no_args_is_help=True, help="What can be chosen by name in an experiment file.")
    listed.command("rewards")(rewards)
    listed.command("families")(families)
    listed.command("benchmarks")(benchmarks)
    listed.command("judges")(judges)
    listed.command("trackers")(trackers)
    app.add_typer(listed, name="list")


CONFIG = typer.Option(None, "--config", help="Experiment file, whose `plugins` are listed too. Default: none.")
AS_JSON = typer.Option(False, "--json", help="Print JSON.")


def rewards(config: Path | None = CONFIG, as_json: bool = AS_JSON) -> None:
    """List the rewards: those of the project, those of installed packages, and those that an experiment file names."""
    from promptecho.config.descriptors import REWARDS, Reward

    def facts(one: Reward) -> dict[str, Any]:
        settings = [] if one.options is None else list(one.options.model_fields)
        return {"summary": one.summary, "needs": one.needs, "settings": settings}

    headings = {"summary": "what it is", "needs": "needs", "settings": "settings"}
    _show(REWARDS, facts, headings, config, as_json)


def families(config: Path | None = CONFIG, as_json: bool = AS_JSON) -> None:
    """List the families of text-to-image models: those of the project, of installed packages, and of an experiment
    file."""
    from promptecho.config.families import FAMILIES, Family

    def facts(one: Family) -> dict[str, Any]:
        size, guidance = f"{one.height} x {one.width}", [one.guidance_of_training, one.guidance_scale]
        return {"title": one.title, "pipeline": one.pipeline_class, "size": size, "guidance_scale": guidance}

    headings = {"title": "what it is", "pipeline": "pipeline in diffusers", "size": "height x width"}
    headings |= {"guidance_scale": "guidance in training, evaluation"}
    _show(FAMILIES, facts, headings, config, as_json)


def benchmarks(config: Path | None = CONFIG, as_json: bool = AS_JSON) -> None:
    """List the benchmarks: those of the project, of installed packages, and those that an experiment file names."""
    from promptecho.config.benchmarks import BENCHMARKS, Benchmark

    def facts(one: Benchmark) -> dict[str, Any]:
        return {
            "title": one.title, "summary": one.summary, "images": one.images, "backends": one.backend_names,
            "needs": {backend.name: backend.needs for backend in one.backends},
            "modes": list(one.modes), "prompts": [source.name for source in one.sources],
        }  # fmt: skip

    headings = {"title": "title", "summary": "what it measures", "backends": "backends"}
    _show(BENCHMARKS, facts, headings, config, as_json)


def judges(config: Path | None = CONFIG, as_json: bool = AS_JSON) -> None:
    """List the kinds of judges: those of the project, of installed packages, and those that an experiment file
    names."""
    from promptecho.config.judge_kinds import JUDGE_KINDS, JudgeKind

    def facts(one: JudgeKind) -> dict[str, Any]:
        return {"summary": one.summary, "needs": one.needs, "provider": one.provider}

    _show(JUDGE_KINDS, facts, {"summary": "what it is", "needs": "needs"}, config, as_json)


def trackers(config: Path | None = CONFIG, as_json: bool = AS_JSON) -> None:
    """List the trackers: those of the project, those of installed packages, and those that an experiment file names."""
    from promptecho.config.tracker_kinds import TRACKERS, TrackerKind

    def facts(one: TrackerKind) -> dict[str, Any]:
        settings = [] if one.options is None else list(one.options.model_fields)
        return {"summary": one.summary, "settings": settings, "missing": one.not_installed()}

    headings = {"summary": "what it is", "settings": "settings", "missing": "what is missing"}
    _show(TRACKERS, facts, headings, config, as_json)


def _show(
    kind: Plugins[Any], facts: Callable[[Any], dict[str, Any]], headings: dict[str, str], config: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Print all of one kind: `facts` of each, in a table under `headings`."""
    from promptecho.config import load_experiment
    from promptecho.errors import ConfigError

    if config is not None:
        load_experiment(config)
    columns = {**headings, **({"version": "version"} if hasattr(kind.expected, "version") else {}), "from": "from"}
    rows: list[dict[str, Any]] = []
    for name in kind.names():
        try:
            found = kind.find(name)
        except ConfigError as error:
            rows.append({"name": name, "problem": str(error)})
            continue
        version = {"version": found.thing.version} if "version" in columns else {}
        rows.append({"name": name, **facts(found.thing), **version, "from": found.origin, "object": found.spec})
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(caption=f"a {kind.noun} of your own: docs/extending.md")
    for column in ("name", *columns.values()):
        table.add_column(column, overflow="fold")
    for row in rows:
        if "problem" in row:
            table.add_row(row["name"], Text(row["problem"], style="red"), *[""] * (len(columns) - 1))
            continue
        values = [row[key] for key in columns]
        cells = [", ".join(map(str, one)) if isinstance(one, list) else str(one) for one in values]
        table.add_row(row["name"], *map(Text, cells))
    Console().print(table)
