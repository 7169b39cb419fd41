"""`promptecho benchmarks`: facts about the benchmarks and their scorers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from promptecho.commands.files import given_files
from promptecho.commands.group import BenchmarksGroup
from promptecho.commands.options import PluginsConfig, load_plugins_of
from promptecho.errors import counted


class _PromptsGroup(BenchmarksGroup):
    prefix = "benchmarks"

    def of_benchmarks(self, ours_only: bool = False) -> dict[str, tuple[Callable[..., Any], str]]:
        from promptecho.config.benchmarks import BENCHMARKS, available_benchmarks
        from promptecho.plugins import import_object

        found = {}
        for one in available_benchmarks(ours_only):
            for name, spec in one.thing.commands.items():
                command = import_object(spec, f"benchmark {one.thing.name} ({BENCHMARKS.find(one.thing.name)})")
                found[name] = (command, command.__doc__ or "")
        return found


def register(app: typer.Typer) -> None:
    benchmarks = typer.Typer(
        cls=_PromptsGroup, no_args_is_help=True, help="The benchmarks' prompts and images, and checks of their scorers."
    )
    benchmarks.callback()(lambda: None)
    benchmarks.command()(fetch)
    benchmarks.command()(verify)
    benchmarks.command()(heldout)
    benchmarks.command()(pack)
    benchmarks.command()(unpack)
    app.add_typer(benchmarks, name="benchmarks")


def fetch(
    out: Annotated[Path, typer.Option(help="Folder to write to; each benchmark gets OUT/NAME/.")],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Prompt sets by name, such as a benchmark's. Default: all."),
    ] = None,
    mirror: Annotated[
        Path | None,
        typer.Option(
            help="Folder with copies of the official files, MIRROR/NAME/; files are taken from there where "
            "it has them. Default: none."
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Server to download from, as BASE_URL/OWNER/NAME/COMMIT/PATH. Default: GitHub's.")
    ] = None,
    config: PluginsConfig = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was fetched as JSON.")] = False,
) -> None:
    """Fetch the official prompt sets at pinned commits, checked by hash, with licence and citation."""
    from promptecho.benchmarks import fetch as fetching
    from promptecho.benchmarks.sources import find_sources
    from promptecho.config.prompt_sources import RAW

    load_plugins_of(config)
    origin = fetching.Origin(mirror, base_url or RAW)
    records, problem = fetching.fetch_all(find_sources(names or []), out, origin)
    if as_json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        for record in records:
            typer.echo(fetching.describe(record))
    if problem is not None:
        raise problem


def pack(
    images: Annotated[list[Path], typer.Argument(help="Image folders, results/E/images/R/N/SET.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="JSON file to write when done, with the number of images of the one folder; the workflow waits for "
            "it. Default: none."
        ),
    ] = None,
    delete: Annotated[
        bool,
        typer.Option(
            "--delete",
            help="Delete the images instead of packing them. Scores stay; the workflow makes the images "
            "again where it needs them.",
        ),
    ] = False,
) -> None:
    """Move all images of a folder into one file, images.tar. Scoring and figures read that as they read the folder."""
    from promptecho.archives import archive_paths
    from promptecho.benchmarks.packing import PACKED, discard, pack
    from promptecho.files import sha256_file, write_json

    if out is not None and len(images) > 1:
        raise typer.BadParameter("--out tells of one folder; give one, or leave --out out")
    for folder in given_files("IMAGES", images):
        if delete:
            count = discard(folder)
            facts: dict[str, Any] = {"images": 0, "deleted": count}
            typer.echo(f"{folder}: {counted(count, 'image')} deleted")
        else:
            count = pack(folder)
            places = [path for path in (folder / PACKED, *archive_paths(folder)) if path.is_file()]
            facts = {"images": count} | ({"sha256": sha256_file(folder / PACKED)} if folder / PACKED in places else {})
            typer.echo(f"{', '.join(map(str, sorted(places)))}: {counted(count, 'image')}")
        if out is not None:
            write_json(out, facts)


def unpack(
    images: Annotated[Path, typer.Argument(help="Image folder, results/E/images/R/N/SET.")],
    out: Annotated[Path, typer.Option(help="Folder to write, which must not exist.")],
) -> None:
    """Copy an image folder with all its images as files, as the benchmark's official evaluator reads them.

    Images that lie in ZIP files (`storage: zip`) or in images.tar (`keep: packed`) are unpacked. The folder itself
    stays as it is.
    """
    from promptecho.benchmarks.packing import unpack

    (folder,) = given_files("IMAGES", [images])
    typer.echo(f"{out}: {counted(unpack(folder, out), 'image')}")


def heldout(
    captions: Annotated[
        Path, typer.Option(help="Held-out captions (captions/heldout.jsonl): JSON Lines of {data_id, caption}.")
    ],
    count: Annotated[int, typer.Option(min=1, help="How many to take, from the beginning of the file.")],
    out: Annotated[Path, typer.Option(help="Prompt file to write.")],
) -> None:
    """Write an image set's prompts from held-out captions."""
    from promptecho.benchmarks.heldout import write_heldout

    write_heldout(captions, count, out)
    typer.echo(f"{out}: {counted(count, 'prompt')}")


def verify(
    golden: Annotated[
        Path,
        typer.Option(
            help="Cases with the official evaluators' answers: a folder (NAME/cases.jsonl, ...), or a tar archive "
            "of one, such as the repository's tests/data/golden.tar.xz."
        ),
    ],
    prompts: Annotated[
        Path | None,
        typer.Option(
            help="Official prompt file, for checks that need it. Default: the one in GOLDEN/../mirror/NAME/; "
            "without it, what is known of the official set."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Compare the scorers with the official evaluators' answers, case by case."""
    from promptecho.benchmarks.golden import checks
    from promptecho.benchmarks.golden import verify as run

    reports, skipped = run(golden, prompts)
    missing = sorted(set(checks()) - {report.kind for report in reports})
    if as_json:
        facts = {"files": [asdict(report) for report in reports], "skipped": skipped, "missing": missing}
        typer.echo(json.dumps(facts, indent=2))
    else:
        for report in reports:
            typer.echo(f"{report.file}: {report.passed}/{report.total} passed")
            for failure in report.failures:
                typer.echo(f"  {failure['id']}: {'; '.join(failure['problems'])}")
        for name in skipped:
            typer.echo(f"{name}: skipped, this version has no check for it")
        for kind in missing:
            typer.echo(f"{kind}: skipped, the folder holds no file of this kind")
    if not reports or any(report.passed != report.total for report in reports):
        raise typer.Exit(1)
