"""The page of one benchmark: its data as JSON, and the file around it."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import jinja2

import promptecho
from promptecho.browse.records import LONGEST, ShownRecord, constant_keys, show_record
from promptecho.browse.sources import JudgedCheckpoint, read_checkpoints, read_echo
from promptecho.browse.thumbnails import Thumbnail, thumbnails
from promptecho.config import ExperimentConfig
from promptecho.config.benchmarks import benchmark_named
from promptecho.errors import DataError
from promptecho.figures.samples import Key, check
from promptecho.files import write_text
from promptecho.names import shown
from promptecho.reading.scales import change_step, clean, log_prob_step, number, verdict_text
from promptecho.reading.template import DARK, LIGHT, variables

_FOLDER = Path(__file__).parent
_TEXTS = (LONGEST, 500, 150)  # longest texts of records that are tried, in characters


def write_browser(
    results: Path, benchmark: str, out: Path, experiment: ExperimentConfig, *, runs: Sequence[str] = (),
    most: int | None = None, max_mb: float = 30.0, threads: int = 1,
) -> int:  # fmt: skip
    """Write a benchmark's page, which needs nothing else; returns its size in bytes.

    Args:
        results: the experiment's folder, results/E.
        experiment: its configuration.
        runs: only these and the base model; () for all.
        most: most checkpoints; of more so many are chosen, evenly.
        max_mb: of the file, in millions of bytes; images are made as small as that needs.

    Raises:
        ConfigError: the configuration or the scores have no such benchmark or run.
        DataError: a file is missing or damaged, the page has no room in `max_mb`, or the disk is full.
    """
    with contextlib.ExitStack() as stack:
        columns = read_checkpoints(results, benchmark, experiment, runs=runs, most=most, stack=stack)
        image_set = experiment.benchmarks[benchmark].image_set
        keys = judged_keys(columns)
        check([one.column for one in columns], keys)
        echo = read_echo(results, image_set, [one.column for one in columns])
        budget, data, room = max_mb * 1e6, {}, 0.0
        for longest in _TEXTS:
            data = page_data(columns, keys, echo, longest)
            room = budget - len(_page(data, benchmark, experiment, columns)) - 100 * len(keys) * len(columns)
            if room > budget / 2:
                break
        if room <= 0:
            raise DataError(f"{results}: the texts of {benchmark} alone have more than {max_mb:g} MB; raise --max-mb")
        files = [one.column.images[key].path for key in keys for one in columns]
        pictures, pixels = thumbnails(files, room, threads)
    cells = [cell for prompt in data["prompts"] for image in prompt["images"] for cell in image["cells"]]
    for cell, picture in zip(cells, pictures, strict=True):
        _put(cell, picture)
    data["pixels"] = pixels
    text = _page(data, benchmark, experiment, columns)
    write_text(out, text)
    return len(text.encode())


def judged_keys(columns: Sequence[JudgedCheckpoint]) -> list[Key]:
    """All images that a checkpoint has a verdict of, by prompt."""
    found = {key for one in columns for key in one.column.verdicts}
    return sorted(found & set(columns[0].column.images)) or sorted(columns[0].column.images)


def page_data(
    columns: Sequence[JudgedCheckpoint], keys: Sequence[Key], echo: Mapping[tuple[str, Key], dict],
    longest: int = LONGEST,
) -> dict[str, Any]:  # fmt: skip
    """What the page shows, as JSON-able values; its images are put in afterwards, in the order of keys and columns."""
    pairwise = any(one.column.difference for one in columns)
    constant = [constant_keys([row for rows in one.records.values() for row in rows]) for one in columns]
    by_prompt: dict[str, list[Key]] = {}
    for key in keys:
        by_prompt.setdefault(key[0], []).append(key)
    several = len({group for one in columns for group in one.groups.values()}) > 1
    prompts = []
    for prompt_id, mine in by_prompt.items():
        images = []
        for key in mine:
            found = [_shown(one, key, same, longest) for one, same in zip(columns, constant, strict=True)]
            for record in found:  # boxes of a pair's other image belong to the first column
                found[0].boxes += record.baseline_boxes if not found[0].boxes else []
            images.append({"index": key[1], "cells": [
                _cell(one, key, record, echo.get((one.column.label, key)), columns[0].column.label)
                for one, record in zip(columns, found, strict=True)
            ]})  # fmt: skip
        prompts.append(
            {
                "id": shown(prompt_id),
                "text": clean(columns[0].column.images[mine[0]].prompt),
                "values": [_mean([one.column.verdicts.get(key) for key in mine]) for one in columns],
                "failed": [_failures(one, mine) for one in columns],
                "groups": _groups(columns, mine, several),
                "images": images,
            }
        )
    return {
        "pairwise": pairwise,
        "columns": [{"label": one.column.label, "judged": one.scores is not None} for one in columns],
        "groups": sorted({group for prompt in prompts for group in prompt["groups"]}),
        "prompts": prompts,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(fmean(known), 6) if known else None


def _failures(one: JudgedCheckpoint, keys: Sequence[Key]) -> int:
    return sum(key in one.column.verdicts and one.column.verdicts[key] is None for key in keys)


def _groups(columns: Sequence[JudgedCheckpoint], keys: Sequence[Key], several: bool) -> dict[str, list[float | None]]:
    """The prompt's verdicts by group, for each column: of its images' groups, or where all images have one group, of
    the groups of what its items consist of."""
    if not several:
        prompt = keys[0][0]
        names = dict.fromkeys(group for one in columns for group in one.parts.get(prompt, {}))
        return {
            clean(name): [_mean([one.parts.get(prompt, {}).get(name)]) for one in columns] for name in sorted(names)
        }
    names = dict.fromkeys(one.groups[key] for one in columns for key in keys if key in one.groups)
    return {
        clean(name): [
            _mean([one.column.verdicts.get(key) for key in keys if one.groups.get(key) == name]) for one in columns
        ]
        for name in sorted(names)
    }


def _shown(one: JudgedCheckpoint, key: Key, constant: set[str], longest: int) -> ShownRecord:
    found = [show_record(row, constant, longest) for row in one.records.get(key, [])]
    whole = found[0] if found else ShownRecord()
    for other in found[1:]:
        whole.words = "\n".join(part for part in (whole.words, other.words) if part)
        for name in ("boxes", "baseline_boxes", "tables", "facts"):
            getattr(whole, name).extend(getattr(other, name))
    return whole


def _cell(
    one: JudgedCheckpoint, key: Key, record: ShownRecord, read: Mapping[str, Any] | None, first: str
) -> dict[str, Any]:
    verdicts = one.column.verdicts
    cell: dict[str, Any] = {"file": shown(one.files[key]), "outcome": verdicts.get(key)}
    cell["verdict"] = verdict_text(verdicts[key], one.column.difference) if key in verdicts else ""
    told = asdict(record)
    del told["baseline_boxes"]
    cell |= {name: value for name, value in told.items() if value}
    if read is not None:
        source = "the first column" if read["from"] == first else clean(read["from"])
        cell["echo"] = _echo(read["words"], read["base"], source)
    return cell


def _echo(words: Sequence[Mapping[str, Any]], base: Sequence[Mapping[str, Any]] | None, source: str) -> list[list[Any]]:
    """Of each word: whether a space is before it, its text, its colours, and what its tooltip says; `source` says in
    words whose image `base` was read on."""
    found, end = [], 0
    for place, word in enumerate(words):
        told = f"log p {number(word['log_prob'])}"
        step = None
        if base is not None and len(base) == len(words):
            change = word["log_prob"] - base[place]["log_prob"]
            told, step = f"{told}, from {source} {number(change, sign=True)}", change_step(change)
        elif "change" in word:
            told = f"{told}, from blank {number(word['change'], sign=True)}"
        found.append(
            [int(word["start"] > end), clean(word["text"]) or "(end)", log_prob_step(word["log_prob"]), step, told]
        )
        end = word["end"]
    return found


def _put(cell: dict[str, Any], picture: Thumbnail) -> None:
    cell |= {"src": picture.data, "width": picture.width, "height": picture.height}


def _page(
    data: Mapping[str, Any], benchmark: str, experiment: ExperimentConfig, columns: Sequence[JudgedCheckpoint]
) -> str:
    """The whole file. What comes from outside is in the JSON alone, from which the script makes texts, never HTML; and
    the browser is told to run no other script and to fetch nothing."""
    scored = next(one.scores for one in columns if one.scores is not None)
    title = f"{experiment.experiment}: {benchmark}"
    about = [
        f"{benchmark_named(scored.provenance.scorer).title}, judged by {scored.provenance.judge_model}. "
        f"{len(data['prompts'])} prompts at {len(columns)} checkpoints.",
        f"Made by promptecho {promptecho.__version__} from the scores of {experiment.experiment}; images are scaled "
        "down, and each names its file in the experiment's folder.",
    ]
    style = _source("page.css").replace("/*LIGHT*/", variables(LIGHT)).replace("/*DARK*/", variables(DARK))
    style += _colours()
    script = _source("page.js")
    page = jinja2.Environment(autoescape=True).from_string(_source("page.html"))
    return page.render(
        title=clean(title),
        style=jinja2.filters.Markup(style),
        script=jinja2.filters.Markup(script),
        data=jinja2.filters.Markup(as_script({"title": clean(title), "about": [clean(one) for one in about], **data})),
        hashes={"style": _hash(style), "script": _hash(script)},
    )  # fmt: skip


def as_script(value: Any) -> str:
    """JSON that may stand in a <script> element whatever its texts hold: nothing in it ends the element, begins a
    comment or is a line end of JavaScript."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)  # ASCII only
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _colours() -> str:
    """Rules for words by the two scales of `reading/scales.py`."""
    steps = [(f"p{k}", f"p{k}") for k in range(1, 7)] + [(f"b{k}", f"c{k}") for k in range(-4, 5) if k]
    return "".join(
        f".echo-{name[0]} .{name} {{ background: var(--{colour}); color: var(--{colour}-ink); }}\n"
        for name, colour in steps
    )


def _source(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
