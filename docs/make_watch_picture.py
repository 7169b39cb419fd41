"""Draw the picture of docs/watching.md: one frame of `promptecho train --watch`.

.venv/bin/python docs/make_watch_picture.py results/shapes docs/watch.svg
"""

from __future__ import annotations

import io
import re
import sys
import time
from pathlib import Path

from rich.console import Console

from promptecho.files import write_text
from promptecho.train.watch import frame, snapshot


def main(results: Path, out: Path) -> None:
    """Draw and save."""
    console = Console(record=True, width=100, file=io.StringIO(), force_terminal=True)
    console.print(frame(f"results/{results.name}", snapshot(results, [], time.time())))
    svg = console.export_svg(title="promptecho train --watch", unique_id="watch")
    # Any monospaced font does; rich would have every reader fetch one from the network.
    svg = re.sub(r"@font-face \{.*?\}\n", "", svg, flags=re.DOTALL)
    write_text(out, svg.replace("Fira Code", "monospace"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
