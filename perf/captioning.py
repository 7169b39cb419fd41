"""Tokens per second of captioning: transformers in the job beside a server on the same machine, on the same images.

    python perf/captioning.py --images results/shapes/captions/images --count 64 --rounds 3
    python perf/captioning.py --images data/my-images --count 512 --vlm /models/Qwen3-VL-8B-Instruct --device cuda \\
        --dtype bfloat16 --server "/opt/vllm/bin/vllm serve {model} --host 127.0.0.1 --port {port}"

Both are the code of `promptecho caption shard`, from the first image to the last row in the journal; loading the model
is not counted. Each round takes both, in alternating order. Without `--server` it is vlm_server.py, which is not vLLM
but the same `generate` behind HTTP: what it takes more is what requests cost.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from promptecho.bench.report import spread
from promptecho.captions import shard
from promptecho.captions.inputs import list_images
from promptecho.captions.journal import Journal
from promptecho.captions.server import SERVER, caption_server
from promptecho.captions.server_shard import AS_SERVED, AskedImages, ask
from promptecho.captions.shard_spec import GenerationSettings, ShardSpec
from promptecho.captions.store import CaptionRow, CaptionSource
from promptecho.config.caption_server import CaptionServerSection
from promptecho.judges.record import Record

HERE = Path(__file__).resolve().parent
TICKS = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int) -> float:
    """Of a process and all that it has started."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(map(int, fields[11:15])) / TICKS + sum(cpu_seconds(int(child)) for child in children)


def in_the_job(spec: ShardSpec, work: Path) -> tuple[dict[str, float], list[CaptionRow]]:
    vlm, done = shard.load_vlm(spec.vlm, dtype=spec.settings.dtype, device=spec.device), dict[str, CaptionRow]()
    with Journal(work / "journal.jsonl", {}) as journal:
        begin, cpu = time.perf_counter(), time.process_time()
        shard._caption_missing(vlm, spec.items(), done, journal, spec, Counter())
        found = {"seconds": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu}
    return found, [done[item.image_id] for item in spec.items()]


def by_server(spec: ShardSpec, work: Path) -> tuple[dict[str, float], list[CaptionRow]]:
    assert spec.server is not None
    source = CaptionSource(spec.vlm, AS_SERVED, spec.query, spec.identity())
    with Record(work / "record", SERVER, sync_begun=False) as record, caption_server(spec, work / "log") as server:
        images = AskedImages(spec, source, spec.items(), record)
        begin, cpu = time.perf_counter(), cpu_seconds(os.getpid())
        ask(images, images.missing(), server, spec)
        found = {"seconds": time.perf_counter() - begin, "cpu_s": cpu_seconds(os.getpid()) - cpu}
        return found, images.rows()


SIDES = {"transformers": in_the_job, "server": by_server}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--vlm", default="shapes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--server", help="command with {port}, and {model} if it takes one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="JSON file of all measurements")
    given = parser.parse_args()
    import torch

    torch.set_num_threads(given.threads)
    ours = shlex.join([sys.executable, str(HERE / "vlm_server.py"), "--batch", str(given.batch_size)])
    command = given.server or f"{ours} --threads {given.threads} --model {{model}} --port {{port}}"
    found: list[dict[str, Any]] = []
    captions: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as name:
        some = Path(name, "images.txt")
        some.write_text("".join(f"{item.path.resolve()}\n" for item in list_images(given.images)[: given.count]))
        for number in range(given.rounds):
            for side in list(SIDES)[:: 1 - 2 * (number % 2)]:
                work = Path(name, f"{number}-{side}")
                work.mkdir()
                server = CaptionServerSection(command=command, concurrency=given.concurrency)
                spec = ShardSpec(
                    given.vlm, str(some), "Describe this image in detail.", 0, 1, work / "0.h5", work,
                    GenerationSettings(given.max_new_tokens, dtype=given.dtype, batch_size=given.batch_size),
                    device=given.device, server=server if side == "server" else None,
                )  # fmt: skip
                one, rows = SIDES[side](spec, work)
                tokens = sum(row.n_tokens for row in rows)
                captions[side] = [row.caption for row in rows]
                found.append({"side": side, "round": number, "images": len(rows), "tokens": tokens} | one)
    for side in SIDES:
        mine = [one for one in found if one["side"] == side]
        rates = [one["tokens"] / one["seconds"] for one in mine]
        cpu = [1000 * one["cpu_s"] / one["images"] for one in mine]
        print(f"{side:12s} tokens/s {spread(rates)}; CPU ms an image {spread(cpu)}; n = {len(mine)}")
    pairs = zip(*([one for one in found if one["side"] == side] for side in SIDES), strict=True)
    ratios = [theirs["cpu_s"] / own["cpu_s"] for own, theirs in pairs]
    same = sum(map(str.__eq__, *captions.values()))
    print(f"CPU of server / transformers {spread(ratios)}; {same} of {given.count} captions are the same")
    if given.out:
        given.out.write_text(json.dumps({"given": vars(given), "found": found}, indent=1, default=str) + "\n")


if __name__ == "__main__":
    main()
