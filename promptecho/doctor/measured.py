"""A command of promptecho, and what it took: `python -m promptecho.doctor.measured WORDS... --rows FILE` runs
`promptecho WORDS...` in this process, and adds a row with its peaks of memory to FILE at the end, however it ends. FILE
is there, empty, once it has begun."""

from __future__ import annotations

import json
import resource
import runpy
import sys
from pathlib import Path
from typing import Any

from promptecho.shipped import PACKAGE


def peaks() -> dict[str, Any]:
    """Seconds of processors (`cpu_s`), and GB: the largest resident size of this process or of one that it has started
    and that has ended, and the largest allocation on a GPU by torch (None: none was used)."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    used = [resource.getrusage(kind) for kind in kinds]
    host = max(one.ru_maxrss for one in used) * 1024 / 1e9
    torch, gpu = sys.modules.get("torch"), None
    if torch is not None and torch.cuda.is_initialized():
        gpu = max(torch.cuda.max_memory_allocated(index) for index in range(torch.cuda.device_count())) / 1e9
    cpu = sum(one.ru_utime + one.ru_stime for one in used)
    return {"host_gb": round(host, 3), "gpu_gb": None if gpu is None else round(gpu, 3), "cpu_s": round(cpu, 2)}


def main() -> None:
    *words, option, file = sys.argv[1:]
    assert option == "--rows", "the last two words are --rows FILE"
    Path(file).touch()
    sys.argv = ["promptecho", *words]
    try:
        runpy.run_path(str(PACKAGE / "__main__.py"), run_name="__main__")
    finally:
        with Path(file).open("a", encoding="utf-8") as rows:
            rows.write(json.dumps(peaks()) + "\n")


if __name__ == "__main__":
    main()
