"""Captioning of very many images through a server that answers at once: what the job itself costs, kills included.

    python perf/captions_at_scale.py --images 100000 --kills 2 --out scale.json

Small images are drawn into a temporary folder; the server is caption_stand_in.py, over real HTTP. The job is killed
(SIGKILL) when it has an equal part of the images, and started again each time; then the shard is merged. For every
process: seconds, CPU seconds, largest resident memory. Of all: how many captions were asked for twice.

With `--answered 98000` so many are in the journal before the job begins, written by this script, so that what a job of
this size costs besides asking (start, resumption, file, merge) shows in minutes. `--journal 5000` measures the journal
alone.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from caption_stand_in import CAPTION

from promptecho.captions.server import SERVER
from promptecho.captions.server_shard import AS_SERVED, AskedImages, caption_shard_by_server
from promptecho.captions.shard_spec import GenerationSettings, ShardSpec
from promptecho.captions.store import CaptionSource
from promptecho.cluster.ranks import free_port
from promptecho.config.caption_server import CaptionServerSection
from promptecho.judges.record import Record

HERE = Path(__file__).resolve().parent


def draw(folder: Path, count: int) -> None:
    """PNG files of 24 x 24 pixels, no two alike."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for start in range(0, count, 1000):
        part = folder / f"{start // 1000:04d}"
        part.mkdir(parents=True)
        pixels = rng.integers(0, 256, (1000, 24, 24, 3), np.uint8)
        for index in range(start, min(start + 1000, count)):
            Image.fromarray(pixels[index - start]).save(part / f"{index:07d}.png", compress_level=0)


def asked(port: int) -> dict[str, int]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    return json.loads(opener.open(f"http://127.0.0.1:{port}/asked", timeout=60).read())


def measured(command: list[str], log: Path, what: str, until: Any = None) -> dict[str, Any]:
    """Run a command; killed when `until` says so."""
    begin = time.monotonic()
    with open(log, "a") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        killed = False
        while until is not None and process.poll() is None:
            if until():
                process.send_signal(signal.SIGKILL)
                killed = True
                break
            time.sleep(0.2)
        _, status, used = os.wait4(process.pid, 0) if process.returncode is None else (0, 0, None)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not killed:
        raise SystemExit(f"{what} failed:\n{log.read_text()[-2000:]}")
    found: dict[str, Any] = {"what": what, "seconds": round(time.monotonic() - begin, 1), "killed": killed}
    if used is not None:
        found |= {"cpu_s": round(used.ru_utime + used.ru_stime, 1), "peak_mb": round(used.ru_maxrss / 1024)}
    print(found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--answered", type=int, default=0)
    parser.add_argument("--journal", type=int, help="measure so many calls of the journal, with and without threads")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--folder", type=Path, help="where all is written; default: a temporary folder")
    parser.add_argument("--out", type=Path, help="JSON file of the measurements")
    given = parser.parse_args()
    if given.one:
        print(json.dumps(caption_shard_by_server(spec_of(Path(given.one[0]), int(given.one[1]), given.concurrency))))
        return
    if given.journal:
        for threads in (1, given.concurrency):
            print(journal_alone(given.journal, threads, given.folder))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        root, port = Path(name), free_port()
        draw(root / "images", given.images)
        server = subprocess.Popen([sys.executable, str(HERE / "caption_stand_in.py"), "--port", str(port)])
        try:
            found = run(root, port, given)
        finally:
            server.kill()
            server.wait()
    if given.out:
        given.out.write_text(json.dumps(vars(given) | found, indent=1, default=str) + "\n")


def spec_of(root: Path, port: int, concurrency: int) -> ShardSpec:
    server = CaptionServerSection(endpoint=f"http://127.0.0.1:{port}/v1", concurrency=concurrency)
    return ShardSpec(
        vlm="shapes", images=str(root / "images"), query="Describe this image in detail.", shard=0, num_shards=1,
        out=root / "00000.h5", work=root / "work", settings=GenerationSettings(), images_list=root / "list.jsonl",
        server=server,
    )  # fmt: skip


def answer(spec: ShardSpec, count: int) -> None:
    """Write a journal as a job leaves it that was killed after so many images."""
    folder = spec.work / f"{spec.out.stem}.server"
    with Record(folder, SERVER, sync_begun=False) as record:
        source = CaptionSource(spec.vlm, AS_SERVED, spec.query, spec.identity())
        missing = AskedImages(spec, source, spec.items(), record).missing()
    folder.mkdir(parents=True)
    with open(folder / "20260101T000000-00000000.jsonl", "w") as file:
        for call, one in enumerate(missing[:count]):
            row = {"call": call, "judge": SERVER, "key": one.key, "id": one.question.id, "attempt": 1, "time": 1e9}
            row |= {"guess": 0, "limit": 512, "order": "images_first", "format": "png"}
            begun = row | {"status": "begun", "input_tokens": 1, "output_tokens": 512}
            ended = row | {"status": "ok", "text": f"{CAPTION} {call}", "model_version": "stand-in", "finish": "stop"}
            ended |= {"input_tokens": 300, "output_tokens": 150}
            file.write(json.dumps(begun) + "\n" + json.dumps(ended) + "\n")


def journal_alone(calls: int, threads: int, folder: Path | None) -> dict[str, Any]:
    """What writing down so many calls and their ends takes, each synced to the disk."""
    with tempfile.TemporaryDirectory(dir=folder) as name, Record(name, SERVER, sync_begun=False) as record:

        def once(index: int) -> None:
            with record.transaction():
                begun = record.begin(f"{index:064d}", "a.png", 1, input_tokens=1, output_tokens=512, guess=0)
            record.end(begun, "ok", text=CAPTION, finish="stop", input_tokens=300, output_tokens=150)

        begin, cpu = time.monotonic(), time.process_time()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(once, range(calls)))
        seconds, used = time.monotonic() - begin, time.process_time() - cpu
    told = {"calls": calls, "threads": threads, "calls_per_s": round(calls / seconds)}
    return told | {"cpu_ms_a_call": round(1000 * used / calls, 3)}


def run(root: Path, port: int, given: argparse.Namespace) -> dict[str, Any]:
    spec, log = spec_of(root, port, given.concurrency), root / "log.txt"
    promptecho = [sys.executable, "-m", "promptecho", "caption"]
    listed = ["--images", spec.images, "--list", str(spec.images_list)]
    command = [*promptecho, "list", "--images", spec.images, "--out", str(spec.images_list)]
    steps = [measured(command, log, "list")]
    if given.answered:
        answer(spec, given.answered)
    command = [sys.executable, __file__, "--one", str(root), str(port), "--concurrency", str(given.concurrency)]
    part = (given.images - given.answered) / (given.kills + 1)
    for kill in range(given.kills):
        steps.append(measured(command, log, "shard", lambda most=part * (kill + 1): asked(port)["asked"] >= most))
    journal = sum(file.stat().st_size for file in spec.work.rglob("*.jsonl"))
    steps.append(measured(command, log, "shard") | {"journal_mb_at_start": round(journal / 1e6, 1)})
    merged = ["--heldout", "10", "--out", str(root / "c.h5"), "--heldout-out", str(root / "h.jsonl")]
    steps.append(measured([*promptecho, "merge", str(spec.out), *merged, *listed], log, "merge"))
    told = asked(port)
    told |= {"asked_twice": told["asked"] - told["different"], "file_mb": round(spec.out.stat().st_size / 1e6, 1)}
    print(told, flush=True)
    return {"steps": steps, "server": told}


if __name__ == "__main__":
    main()
