"""Where resolved configurations lie: results/E/config/DIGEST.yaml, as write_resolved has written them."""

from __future__ import annotations

from pathlib import Path


def resolved_files(results: Path) -> list[Path]:
    """Those of results/E, the newest last."""
    return sorted(results.glob("config/*.yaml"), key=lambda path: (path.stat().st_mtime, path.name))
