"""Rank 0's metrics while a segment runs: a JSON Lines file, and TensorBoard where asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from promptecho.files import write_jsonl


class MetricsLog:
    """Starts with the rows up to the state that the segment goes on from; what came after is computed again."""

    def __init__(self, path: Path, tensorboard: Path | None, rows: list[dict[str, Any]], iteration: int):
        write_jsonl(path, rows)
        self.path, self.board = Path(path), None
        if tensorboard is not None:
            from promptecho.train.tensorboard import TensorBoardLog

            self.board = TensorBoardLog(tensorboard, iteration)

    def add(self, row: dict[str, Any]) -> None:
        """Append one iteration's row."""
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        if self.board is not None:
            self.board.add(row)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
