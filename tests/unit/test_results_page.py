"""docs/results-shapes.md is what its kept score files say."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_written_again_to_the_same_bytes_and_its_tables_follow_the_scores():
    sys.path.insert(0, str(ROOT / "scripts"))
    from results_page import BLOCK, NOT_RUN, page

    text, kept, configs = (ROOT / "docs/results-shapes.md").read_text("utf-8"), ROOT / "docs/results", ROOT / "config"
    assert page(text, kept, configs / "experiments") == text
    assert len(BLOCK.findall(text)) == 5
    empty = page(text, ROOT / "no/such/folder", configs / "experiments")
    assert empty.count("No scores are kept yet.") == 5 and f"| promptecho: {NOT_RUN} |" in empty
    assert not any(" gains " in block for *_, block in [(m[0],) for m in BLOCK.finditer(empty)])
