"""A benchmark of 150 questions through the commands, with each trouble that judges have: it ends in a full table or in
one sentence, no question is paid for twice, and score and tables then need neither key nor server.

The test has all troubles in one run. Each by itself, with outages of a minute, and the counts of requests:

    python tests/unit/test_judges_troubles.py --outage 60
"""

from __future__ import annotations

import argparse
import json
import os
import re
import tempfile
import threading
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from judge_cases import PROXIES, VARIABLES
from judge_server import KEY, JudgeServer, serving
from PIL import Image
from typer.testing import CliRunner

from promptecho.benchmarks.captions.layout import CaptionsLayout
from promptecho.cli import app
from promptecho.errors import PromptEchoError
from promptecho.files import write_jsonl

ROOT = Path(__file__).parents[2]
COUNT = 150
KINDS = ("gemini", "openai")
TROUBLES = ("thinking", "503", "429", "poisoned", "refusals", "moved", "version")
CUT, POISONED, REFUSED = {7, 40, 77, 110, 149}, {70}, {3, 20, 41, 99, 148}
OUTAGE_AT = {"503": 30, "429": 90}  # after so many requests


class Troubled:
    """The plan of a server that has some of the troubles, and what it counts."""

    def __init__(self, troubles: set[str], outage_s: float):
        self.troubles, self.outage_s = troubles, outage_s
        self.requests, self.until, self.lock = 0, {}, threading.Lock()
        self.server: JudgeServer | None = None

    def __call__(self, text: str, nth: int) -> str | None:
        number = number_of(text)
        with self.lock:
            self.requests += 1
            for status in OUTAGE_AT:
                if status in self.troubles and self.requests == OUTAGE_AT[status]:
                    self.until[status] = time.monotonic() + self.outage_s
        for status, end in list(self.until.items()):
            if time.monotonic() < end:
                return status
        if "poisoned" in self.troubles and number in POISONED:
            return "400"
        if "refusals" in self.troubles and number in REFUSED:
            return "refusal" if number % 2 else "safety"
        if "thinking" in self.troubles and number in CUT:
            mine = [entry["limit"] for entry in self.server.log if number_of(entry["text"]) == number]
            return "thinking" if mine[-1] <= 64 else None
        return None


def number_of(text: str) -> int:
    return int(re.search(r"pair (\d+) of", text)[1])


def answer(text: str) -> str:
    return json.dumps({"reasoning": "", "preference": ("image_a", "image_b", "tie")[number_of(text) % 3]})


def write_world(folder: Path) -> dict[str, Path]:
    """Prompts, and two folders of images that differ."""
    prompts = folder / "prompts.jsonl"
    write_jsonl(prompts, [{"data_id": f"p{k}", "caption": f"The pair {k} of {COUNT}."} for k in range(COUNT)])
    world = {"prompts": prompts}
    for side, name in enumerate(("images", "baseline")):
        layout = CaptionsLayout(prompts, folder / name, 1)
        (folder / name).mkdir(parents=True)
        for p in range(COUNT):
            Image.new("RGB", (16, 16), (p, side, 5)).save(layout.image_path(p, 0))
        layout.describe(range(COUNT))
        world[name] = folder / name
    return world


def command(*words) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)
    if isinstance(done.exception, PromptEchoError):
        raise done.exception
    assert done.exit_code == 0, (done.output, done.exception)
    return done.stdout


@contextmanager
def keys(there: bool):
    """The providers' keys, or none of them; and no proxy before servers on this machine."""
    before = dict(os.environ)
    for name in (*PROXIES, "GOOGLE_API_KEY", *VARIABLES.values()):
        os.environ.pop(name, None)
    os.environ.update(dict.fromkeys(VARIABLES.values(), KEY) if there else {})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Case:
    """One experiment: its configuration, its answers and what its servers counted."""

    def __init__(self, folder: Path, kind: str, world: dict[str, Path]):
        self.folder, self.kind, self.world = folder, kind, world
        self.billed: Counter[int] = Counter()
        self.requests = 0
        self.sentences: list[str] = []

    def config(self, server: JudgeServer, **judge) -> Path:
        value = yaml.safe_load((ROOT / "config/experiments/shapes.yaml").read_text())
        settings = {"kind": self.kind, "model": "judge-1.5", "endpoint": server.endpoint(self.kind),
                    "max_output_tokens": 64, **judge}  # fmt: skip
        value["judges"] = {"models": {"one": settings}}
        value["benchmarks"]["densealign"] = {
            "image_set": "heldout", "scorer": "densealign", "backend": "judge", "judge": "one",
            "max_failed_share": 0.1,
        }  # fmt: skip
        path = self.folder / "shapes.yaml"
        path.write_text(yaml.safe_dump(value))
        return path

    def arguments(self, config: Path) -> list:
        named = {f"--{name}": path for name, path in self.world.items()}
        found = {**named, "--benchmark": "densealign", "--answers": self.folder / "answers", "--config": config}
        return [word for pair in found.items() for word in pair]

    def judge(self, troubles: set[str], outage_s: float, version: str = "judge-1.5-001", **judge) -> dict | None:
        """Ask at a server of its own, which is gone afterwards; None where it ended in one sentence."""
        plan = Troubled(troubles, outage_s)
        with serving(plan=plan, answer=answer, retry_after=None, version=version) as server, keys(there=True):
            plan.server = server
            self.path = self.config(server, **judge)
            try:
                told = command("judge", *self.arguments(self.path), "--out", self.folder / "judged.json", "--json")
            except PromptEchoError as error:
                assert "\n" not in str(error)
                self.sentences.append(str(error))
                told = None
            self.billed.update(number_of(text) for text in server.billed)
            self.requests += len(server.log)
        return told and json.loads(told)

    def table(self) -> dict:
        """Without key and server: the questions' end again, the score file and the table of it."""
        score = self.folder / "results/shapes/scores/densealign/r/40.json"
        with keys(there=False):
            command("judge", *self.arguments(self.path), "--out", self.folder / "judged.json")
            told = ("--experiment", "shapes", "--run", "r", "--step", 40)
            command("score", *self.arguments(self.path), "--out", score, *told)
            share = ("--max-failures", "shapes/densealign=0.1")
            return json.loads(command("tables", "--table", "densealign", "--scores", score, *share, "--json"))


def run(folder: Path, kind: str, world: dict[str, Path], troubles: set[str], outage_s: float) -> Case:
    """Ask until all is answered that can be, as a user would, and check what must hold."""
    folder.mkdir(parents=True)
    case, limit = Case(folder, kind, world), {}
    if "moved" in troubles:  # the first server is asked half of all, then it is gone
        assert case.judge(troubles, outage_s, max_calls=75) is None
        assert "max_calls 75 is used up" in case.sentences[-1] and sum(case.billed.values()) <= 75
    version = "judge-1.5-002" if "version" in troubles else "judge-1.5-001"
    if "version" in troubles and "moved" not in troubles:
        assert case.judge(troubles, outage_s, max_calls=75) is None
    facts = case.judge(troubles - {"503", "429"} if "moved" in troubles else troubles, outage_s, version)
    gone = {"cut": len(CUT) * ("thinking" in troubles), "HTTP 400": int("poisoned" in troubles),
            "refused": len(REFUSED) * ("refusals" in troubles)}  # fmt: skip
    assert facts["unanswered"] == {reason: count for reason, count in gone.items() if count}
    table = case.table()
    assert table["rows"][0]["failures"]["value"] == sum(gone.values())
    assert table["rows"][0]["images"]["value"] == COUNT - sum(gone.values())
    if "thinking" in troubles:
        assert any(f"{len(CUT)} cut at max_output_tokens" in note for note in table["footnotes"])
        limit = {"max_output_tokens": 128}
        paid = case.billed.copy()
        facts = case.judge(troubles - {"503", "429"}, outage_s, version, **limit)
        assert "cut" not in facts["unanswered"] and set(case.billed - paid) == CUT
        table = case.table()
    assert any("several versions" in warning for warning in table["warnings"]) == ("version" in troubles)
    assert not POISONED & set(case.billed) or "poisoned" not in troubles
    twice = {number for number, count in case.billed.items() if count > 1}
    assert twice == (CUT if limit else set()) and len(set(case.billed) | POISONED) == COUNT
    case.told = (
        f"{kind:7} {'+'.join(sorted(troubles)):32} {case.requests:4} requests, {sum(case.billed.values())} paid, "
        f"{len(twice)} twice; table: {int(table['rows'][0]['images']['value'])} of {COUNT} judged, "
        f"{int(table['rows'][0]['failures']['value'])} failed"
    )
    return case


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    pytest.importorskip("openai")
    pytest.importorskip("google.genai")
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_trouble_ends_in_a_table_that_tells_it(kind, world, tmp_path):
    case = run(tmp_path / "case", kind, world, set(TROUBLES), outage_s=0.5)
    assert KEY not in "".join(path.read_text() for path in tmp_path.rglob("*.json*"))
    assert len(case.sentences) == 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outage", type=float, default=60.0, help="Seconds of 503 and of 429. Default: 60.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        world = write_world(Path(folder) / "world")
        for kind in KINDS:
            for trouble in TROUBLES:
                begun = time.monotonic()
                case = run(Path(folder) / kind / trouble, kind, world, {trouble}, chosen.outage)
                print(f"{case.told}; {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
