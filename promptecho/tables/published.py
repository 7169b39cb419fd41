"""The numbers of the paper's Tables 1-8 (arXiv 2604.12652): facts, in published.json beside this file."""

from __future__ import annotations

import functools
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from promptecho.files import read_json

PATH = Path(__file__).with_name("published.json")


class _PublishedModel(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedSource(_PublishedModel):
    """Where the numbers are from."""

    title: str
    arxiv: str
    note: str


class PublishedColumn(_PublishedModel):
    """`decimals` as printed; `scale` turns percent into the printed unit."""

    label: str
    decimals: int = Field(ge=0)
    scale: float = 1.0


class PublishedPanel(_PublishedModel):
    """Columns SCORER.COLUMN in their order; `delta`, `prompts`, `images` and `failures` are ours alone."""

    title: str
    columns: list[str]


class PublishedTable(_PublishedModel):
    """`rows`: name in `values` -> label in this table. `labels` replace those of columns."""

    title: str
    rows: dict[str, str]
    panels: list[PublishedPanel]
    labels: dict[str, str] = {}

    @property
    def keys(self) -> list[str]:
        """All columns."""
        return [key for panel in self.panels for key in panel.columns]


class Published(_PublishedModel):
    """`values`: row -> column -> number as printed. `runs`: row -> EXPERIMENT/RUN where nobody names another.
    `backends`: benchmark -> what looked at the images, where anything else makes another metric."""

    source: PublishedSource
    columns: dict[str, PublishedColumn]
    runs: dict[str, str]
    backends: dict[str, str]
    tables: dict[str, PublishedTable]
    values: dict[str, dict[str, float]]

    @property
    def scorers(self) -> list[str]:
        """The benchmarks whose numbers the paper has."""
        return list(dict.fromkeys(key.partition(".")[0] for key in self.columns))


@functools.cache
def published() -> Published:
    """All published numbers."""
    return Published.model_validate(read_json(PATH))


def agrees(value: float, decimals: int, low: float, high: float) -> bool:
    """Whether a number printed with `decimals` can lie in [low, high]: the interval widened by half its last digit.

    The published number counts as exact up to rounding: its own uncertainty is not published.
    """
    half = 0.5 * 10**-decimals
    return low - half - 1e-9 <= value <= high + half + 1e-9
