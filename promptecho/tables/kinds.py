"""Tables by benchmark."""

from __future__ import annotations

from collections.abc import Sequence

from promptecho.config.benchmarks import load_part, mistakes_told
from promptecho.tables.collect import ScoreFile
from promptecho.tables.compare import MAX_FAILURE_SHARE, FailureShare, comparison
from promptecho.tables.guard_columns import Guards
from promptecho.tables.kind import TableKind
from promptecho.tables.table import Table


def kind_of(scorer: str, files: Sequence[ScoreFile] = ()) -> TableKind:
    """The kind of a benchmark's tables; some depend on the groups that the files have.

    Raises:
        ConfigError: there is no such benchmark, or its table cannot be imported.
        BenchmarkError: code from outside fails.
    """
    table = load_part(scorer, "table")
    if isinstance(table, TableKind):
        return table
    with mistakes_told(scorer, "table"):
        return table(files)


def make_table(
    scorer: str, files: list[ScoreFile], *, name: str, max_failure_share: FailureShare = MAX_FAILURE_SHARE,
    guards: Guards | None = None,
) -> Table:  # fmt: skip
    """Build a benchmark's table from score files sorted as `read_score_files` returns them; see `comparison`."""
    kind = kind_of(scorer, files)
    return comparison(kind, files, name=name, max_failure_share=max_failure_share, guards=guards)
