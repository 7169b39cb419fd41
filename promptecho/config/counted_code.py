"""Which files of the package decide scores and tables, and the digest of what stands in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import promptecho
from promptecho.files import digest

# Files whose code decides scores and tables; relative to the package.
NOT_SCORING = (
    "__init__.py",
    "table.py",
    "shapes.py",
    "gallery.py",
    "prompt_rows.py",
    "golden.py",
)  # in the folder of a benchmark
ORACLE = tuple(f"shapes/{name}.py" for name in ("oracle", "render", "grammar", "world"))
_GALLERY = ("captions", "drawing", "glyphs", "look_oracle", "posters", "scenes", "shown_text", "text_oracle", "words")
_MOVING = (*(f"moving/{name}.py" for name in ("grammar", "oracle", "render", "world")), "video.py")
ORACLES = {
    "shapes": ORACLE, "gallery": (*ORACLE, *(f"gallery/{name}.py" for name in _GALLERY)), "moving": (*ORACLE, *_MOVING),
}  # fmt: skip
SCORING_CODE = (
    *(
        f"benchmarks/{name}.py"
        for name in ("backends", "layout", "limit", "listing", "local_vlm", "perception", "scoring")
    ),
    *("captions/prompts.py", "text_files.py", "scores.py", "archives.py", "images.py", "pixels.py"),
)
JUDGE_CODE = ("templates.py", "json_reply.py", "benchmarks/templates.py", "benchmarks/replies.py", "judges")
TABLES_CODE = (
    "tables",
    "guard_files.py",
    "html_page.py",
    "statistics.py",
    "shared_prompts.py",
    "intervals.py",
    "scores.py",
    "item_columns.py",
    "provenance.py",
)


def code_digest(*names: str, leave_out: Sequence[str] = ()) -> str:
    """Digest of files and folders of the package (its Python and template files), named relative to it, without files
    of the names `leave_out` in those folders.

    Raises:
        FileNotFoundError: there is no such file or folder; a renamed file would silently stop counting.
    """
    root = Path(promptecho.__file__).parent
    texts = {}
    for name in names:
        found = sorted(path for suffix in ("py", "txt", "json") for path in (root / name).rglob(f"*.{suffix}"))
        for file in [path for path in found if path.name not in leave_out] or [root / name]:
            texts[str(file.relative_to(root))] = file.read_text(encoding="utf-8")
    return digest(texts)
