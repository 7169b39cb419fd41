"""Tables by scorer."""

from __future__ import annotations

from collections.abc import Sequence

from promptecho.tables.captions import CAPTIONS
from promptecho.tables.collect import ScoreFile
from promptecho.tables.compare import MAX_FAILURE_SHARE, FailureShare, comparison
from promptecho.tables.densealign import DENSEALIGN
from promptecho.tables.dpg import DPG
from promptecho.tables.geneval import GENEVAL
from promptecho.tables.kind import Kind
from promptecho.tables.table import Table
from promptecho.tables.textocr import TEXTOCR, textocr_kind
from promptecho.tables.tiif import TIIF

KINDS: dict[str, Kind] = {
    "geneval": GENEVAL,
    "captions": CAPTIONS,
    "dpg": DPG,
    "tiif": TIIF,
    "densealign": DENSEALIGN,
    "textocr": TEXTOCR,
}


def kind_of(scorer: str, files: Sequence[ScoreFile]) -> Kind:
    """The kind of a scorer's tables; some depend on the groups that the files have."""
    return textocr_kind(files) if scorer == "textocr" else KINDS[scorer]


def make_table(
    scorer: str, files: list[ScoreFile], *, name: str, max_failure_share: FailureShare = MAX_FAILURE_SHARE
) -> Table:
    """Build a scorer's table from score files sorted as `read_score_files` returns them; see `comparison`."""
    return comparison(kind_of(scorer, files), files, name=name, max_failure_share=max_failure_share)
