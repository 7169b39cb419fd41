"""Seeds as pure functions of what they are for, never of rank, batch size or the order of work."""

from __future__ import annotations

import hashlib
import json


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from any mix of integers and strings: same parts, same seed, on every machine.

    `derive_seed(run_seed, "noise", iteration, prompt_index, image_index)` names a stream by what it is for.
    """
    text = json.dumps(parts, ensure_ascii=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
