"""Pages to look through results: what they hold, that nothing from outside becomes HTML, and what a browser shows."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from promptecho.browse.page import as_script, write_browser
from promptecho.browse.records import constant_keys, show_record
from promptecho.browse.sources import benchmarks_in
from promptecho.browse.thumbnails import thumbnails
from promptecho.cli import app
from promptecho.config import load_experiment
from promptecho.errors import ConfigError, DataError
from promptecho.files import write_json, write_jsonl
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, raw_path, write_scores

BROWSER = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
SHAPES = Path(__file__).resolve().parents[2] / "config/experiments/shapes.yaml"
HOSTILE = "</script><script>document.title='owned'</script><!-- \u2028 \u202eabc\u202c \"quoted\" & 'single' "
HOSTILE += "<img src=x onerror=alert(1)>"
PROMPTS = {"a": "A red circle.", "b": HOSTILE, "c": "دائرة حمراء two squares"}


def write_images(results: Path, run: str, step: int, image_set: str, prompts: dict[str, str], size: int = 16) -> None:
    root = results / f"images/{run}/{step}/{image_set}"
    rows = [
        {"prompt_id": key, "image_index": i, "prompt": text, "filename": f"{n}_{i}.png", "sha256": ""}
        for n, (key, text) in enumerate(prompts.items())
        for i in range(2)
    ]
    write_jsonl(root / "shards/0.jsonl", rows)
    for n, row in enumerate(rows):
        pixels = np.random.default_rng([n, step]).integers(0, 255, (size, size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / row["filename"])


def write_scored(results: Path, benchmark: str, scorer: str, run: str, step: int, rows: list[dict], **more) -> None:
    """A score file and the raw records of images [prompt id, index, group, outcome] beside it."""
    keys = ("prompt_id", "image_index", "group", "outcome")
    items = [ScoreItem(**{key: row[key] for key in keys}, failed=row["outcome"] is None) for row in rows]
    provenance = Provenance(
        experiment="shapes", run=run, step=step, benchmark=benchmark, scorer=scorer, backend="oracle", mode="official",
        judge_model=f"a <b>judge</b>, {HOSTILE}", n=len(items), failures=sum(item.failed for item in items),
    )  # fmt: skip
    path = results / f"scores/{benchmark}/{run}/{step}.json"
    write_scores(path, Scores(provenance=provenance, summary={"overall": 0.5}, items=items, **more))
    write_jsonl(raw_path(path), rows)


def judged(outcomes: dict[str, list[float | None]]) -> list[dict]:
    box = {"circle": [[2.0, 3.0, 9.0, 11.0, 0.9]], "<b>": []}
    return [
        {"prompt_id": key, "image_index": i, "group": "colors" if key == "a" else "counting", "outcome": outcome,
         "options": {"threshold": 0.3}, "detections": box, "colors": {"circle": ["red"]},
         "reason": f"{HOSTILE} {key}{i}", "failed": outcome is None}
        for key, values in outcomes.items()
        for i, outcome in enumerate(values)
    ]  # fmt: skip


@pytest.fixture
def results(tmp_path) -> Path:
    """GenEval of the base model and a run: `a` gains, `b` loses, `c` has a judgement that failed."""
    folder = tmp_path / "shapes"
    for run, step, outcomes in (
        ("base", 0, {"a": [0.0, 0.0], "b": [1.0, 1.0], "c": [1.0, 0.0]}),
        ("r", 4, {"a": [1.0, 1.0], "b": [0.0, 1.0], "c": [None, 0.0]}),
    ):
        write_images(folder, run, step, "geneval", PROMPTS)
        write_scored(folder, "geneval", "geneval", run, step, judged(outcomes))
    return folder


class Seen(HTMLParser):
    """Tags with their attributes, and the texts of scripts and styles by their type."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.texts: dict[str, str] = {}
        self._into = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._into = tag if tag != "script" else dict(attrs).get("type", "script")

    def handle_endtag(self, tag):
        self._into = ""

    def handle_data(self, data):
        self.texts[self._into] = self.texts.get(self._into, "") + data


def page_of(results: Path, benchmark: str = "geneval", **options) -> tuple[Seen, dict, str]:
    out = results.parent / "pages" / f"{benchmark}.html"
    size = write_browser(results, benchmark, out, load_experiment(SHAPES), **options)
    text = out.read_text(encoding="utf-8")
    assert size == len(text.encode()) == out.stat().st_size
    seen = Seen(text)
    return seen, json.loads(seen.texts["application/json"]), text


def test_a_page_holds_all_and_nothing_from_outside_becomes_html(results):
    seen, data, text = page_of(results)
    assert [tag for tag, _ in seen.tags].count("script") == 2 and "img" not in [tag for tag, _ in seen.tags]
    assert not [names for _, names in seen.tags if {"src", "href", "onerror"} & set(names)]
    assert HOSTILE not in text and "\u2028" not in text and "\u202e" not in text
    assert [prompt["text"] for prompt in data["prompts"]] == list(PROMPTS.values())
    assert HOSTILE in data["about"][0]
    told = {one["id"]: (one["values"], one["failed"], one["groups"]) for one in data["prompts"]}
    assert told["a"] == ([0.0, 1.0], [0, 0], {"colors": [0.0, 1.0]})
    assert told["b"] == ([1.0, 0.5], [0, 0], {"counting": [1.0, 0.5]})
    assert told["c"] == ([0.5, 0.0], [0, 1], {"counting": [0.5, 0.0]})
    cell = data["prompts"][1]["images"][0]["cells"][1]
    assert (
        cell["verdict"] == "wrong" and cell["words"] == f"{HOSTILE} b0" and cell["file"] == "images/r/4/geneval/1_0.png"
    )
    assert cell["boxes"] == [[2.0, 3.0, 9.0, 11.0, "red circle 0.90"]]
    assert "facts" not in cell  # the options are the same in all records
    assert data["prompts"][2]["images"][0]["cells"][1]["verdict"] == "judging failed"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(cell["src"]))))
    assert np.array_equal(shown, np.asarray(Image.open(results / cell["file"])))  # small ones are as they were


def test_the_browser_is_told_to_run_nothing_else_and_to_fetch_nothing(results):
    seen, _, _ = page_of(results)
    (policy,) = [names["content"] for tag, names in seen.tags if names.get("http-equiv") == "Content-Security-Policy"]
    for kind, text in (("script", seen.texts["script"]), ("style", seen.texts["style"])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def browse_dom(page: Path, steps: list[str] | None = None, state: str = "", keys: str = "") -> str:
    """The page's elements in the browser, after clicks on the first elements that these selectors find, and then these
    keys and a click on what has the focus."""
    if steps is not None:  # in a copy that may run one more script
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text(encoding="utf-8"))
        clicks = "".join(f"document.querySelector({json.dumps(step)}).click();" for step in steps)
        press = "document.activeElement.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}))"
        clicks += f"for (const key of {json.dumps(keys)}) {press}; {'document.activeElement.click();' if keys else ''}"
        page = page.with_name("clicked.html")
        page.write_text(text.replace("</body>", f"<script>{clicks}</script></body>"), encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=3000", "--dump-dom"]
    options += [f"--user-data-dir={page.parent / 'browser'}"]
    command = [BROWSER, *options, f"{page.as_uri()}{state}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return done.stdout[done.stdout.index('<main id="list">') : done.stdout.index("</main>")]


@pytest.mark.skipif(BROWSER is None, reason="NO BROWSER: `make test-browser` installs Chromium where it can")
def test_a_browser_shows_a_failing_prompt_after_two_clicks(results):
    page_of(results)
    page = results.parent / "pages/geneval.html"
    told = browse_dom(page, ["#show button[value=lost]", ".head"], keys="jkjj")
    assert told.count("<article") == 2 == told.count('aria-expanded="true"')  # b and c lost; keys opened the second
    first = told[: told.index("</article>")]
    assert 'aria-expanded="true"' in first and "&lt;img src=x onerror=alert(1)&gt; b0" in first
    assert "<script" not in told
    assert first.count("<blockquote") == 4 and first.count('src="data:image/webp;base64,') == 8 and "<rect" in first
    # As it is, with its policy: what to show is in the address.
    told = browse_dom(page, state="#show=gained&open=a")
    assert told.count("<article") == 1 and "A red circle." in told and "+1.00" in told and "<blockquote" in told


def test_pairs_show_the_image_that_was_compared_with(tmp_path):
    results = tmp_path / "shapes"
    objects = {
        "candidate": [{"shape": "star", "box": [0, 0, 4, 4], "score": 1.0}],
        "baseline": [{"shape": "cross", "box": [1, 1, 5, 5], "score": 0.5}],
    }
    rows = [
        {"prompt_id": key, "image_index": i, "group": "all", "outcome": outcome, "objects": objects, "reason": "A"}
        for key, outcome in (("a", -1.0), ("b", 1.0), ("c", None))
        for i in range(2)
    ]
    for run, step in (("base", 0), ("r", 4)):
        write_images(results, run, step, "heldout", PROMPTS)
    write_scored(results, "densealign", "densealign", "r", 4, rows)
    _, data, _ = page_of(results, "densealign")
    assert data["columns"] == [{"label": "base", "judged": False}, {"label": "r @ 4", "judged": True}]
    assert [one["values"] for one in data["prompts"]] == [[None, -1.0], [None, 1.0], [None, None]]
    base, run = data["prompts"][0]["images"][0]["cells"]
    assert base["verdict"] == "" and base["boxes"] == [[1.0, 1.0, 5.0, 5.0, "cross 0.50"]]
    assert run["verdict"] == "lost" and run["boxes"] == [[0.0, 0.0, 4.0, 4.0, "star 1.00"]]


def test_questions_about_an_image_and_parts_of_a_prompt(tmp_path):
    """TIIF-Bench has several items for an image; DPG-Bench has questions of several categories about one."""
    results = tmp_path / "shapes"
    questions = {"questions": ["Is it?", "Is it not?"], "expected": ["yes", "no"], "answers": ["Yes", "yes"]}
    rows = [
        {"prompt_id": "style/0", "image_index": place, "group": f"{length}:style", "outcome": float(place % 2 == 0)}
        for place, length in enumerate(["short"] * 2 + ["long"] * 2)
    ]
    texts = {"style/short/0": "short", "style/long/0": "long"}
    write_images(results, "base", 0, "tiif", texts)
    write_scored(results, "tiif", "tiif", "base", 0, rows)
    raw = [
        {"prompt_id": "style/0", "length": n, "group": f"{n}:style", "failed": False, **questions}
        for n in ("short", "long")
    ]
    write_jsonl(results / "scores/tiif/base/0.raw.jsonl", raw)
    _, data, _ = page_of(results, "tiif")
    one = next(prompt for prompt in data["prompts"] if prompt["id"] == "style/short/0")
    assert one["values"] == [0.5] and one["groups"] == {"short:style": [0.5]} and len(one["images"]) == 1
    (table,) = one["images"][0]["cells"][0]["tables"]
    assert table["rows"] == [["Is it?", "yes", "Yes"], ["Is it not?", "no", "yes"]] and table["wrong"] == [False, True]

    write_images(results, "base", 0, "dpg", {"p": "A star."})
    parts = [ScoreItem(prompt_id="p", image_index=k, group=name, outcome=value, failed=False)
             for k, (name, value) in enumerate([("entity", 1.0), ("entity", 0.0), ("global", 1.0)])]  # fmt: skip
    rows = [{"prompt_id": "p", "image_index": i, "group": "all", "outcome": 0.5} for i in range(2)]
    write_scored(results, "dpg", "dpg", "base", 0, rows, parts=parts)
    _, data, _ = page_of(results, "dpg")
    assert data["groups"] == ["entity", "global"] and data["prompts"][0]["groups"] == {"entity": [0.5], "global": [1.0]}


def test_records_are_read_by_what_they_look_like():
    records = [{"prompt_id": "p", "lines": [{"text": "●", "score": 0.8457, "box": [0.0, 0.0, 63.0, 63.0]}], "edits": n,
                "engine": {"name": "x"}, "facts": [["color", True], ["count", False]], "reply": "w" * 20, "nothing": []}
               for n in range(2)]  # fmt: skip
    assert constant_keys(records) == {"prompt_id", "lines", "engine", "facts", "nothing"}
    one = show_record(records[1], {"engine"}, longest=10)
    assert one.boxes == [(0.0, 0.0, 63.0, 63.0, "● 0.85")] and one.facts == [("edits", "1")]
    assert one.words == "wwwwwwwwww … (10 characters more)"
    (table,) = one.tables
    assert (table.name, table.columns, table.wrong) == ("facts", [], [False, True])
    asked = {
        "questions": [{"question": "Is it?", "counted": 0.0, "parents": [0]}, {"question": "Why?", "counted": 1.0}]
    }
    (table,) = show_record(asked).tables
    assert table.columns == ["question", "counted", "parents"] and table.rows[0] == ["Is it?", "0", "0"]
    assert table.wrong == [True, False]
    assert show_record({"votes": [[1, 2, 3, 4]]}).boxes == []  # numbers without a name that says they are boxes


def test_words_are_shown_where_they_were_read(results):
    word = {"text": "A", "start": 0, "end": 1, "tokens": ["A"], "log_prob": -1.5}
    other = {**word, "text": "red", "start": 2, "end": 5, "log_prob": -0.01}
    shown = [
        {"prompt_id": "a", "image_index": 0, "prompt": PROMPTS["a"]},
        {"prompt_id": "b", "image_index": 0, "prompt": "another"},
    ]
    read = [[{"words": [word, other]}, {"words": [{**word, "log_prob": -4.5}, other]}]] * 2
    told = {"columns": ["base", "r @ 4"], "shown": shown, "read": read, "image_set": "geneval"}
    write_json(results / "figures/words_r.json", told)
    write_json(results / "figures/words_q.json", told | {"image_set": "other", "read": [[{"words": [word]}] * 2] * 2})
    _, data, _ = page_of(results)
    cells = {one["id"]: one["images"][0]["cells"] for one in data["prompts"]}
    assert cells["a"][0]["echo"] == [[0, "A", 3, None, "log p −1.50"], [1, "red", 0, None, "log p −0.01"]]
    assert cells["a"][1]["echo"][0] == [0, "A", 5, -3, "log p −4.50, from the first column −3.00"]
    assert "echo" not in cells["b"][0]  # read on another prompt
    write_json(results / "figures/words_r.json", told | {"columns": ["r @ 2", "r @ 4"]})  # none of the page's columns
    _, data, _ = page_of(results)
    tooltip = data["prompts"][0]["images"][0]["cells"][1]["echo"][0][4]
    assert tooltip == "log p −4.50, from r @ 2 −3.00"
    write_json(results / "figures/words_q.json", {"shown": 3})
    with pytest.raises(DataError, match=r"words_q.json: is no page of words' numbers"):
        page_of(results)


def test_images_are_as_large_as_the_page_has_room_for(tmp_path):
    files = []
    for n in range(6):
        pixels = np.random.default_rng(n).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((336, 252), Image.Resampling.BICUBIC).save(tmp_path / f"{n}.png")
        files.append(tmp_path / f"{n}.png")
    sizes = []
    for budget in (1e7, 4e4, 1.2e4):
        found, pixels = thumbnails(files, budget)
        assert sum(len(one.data) for one in found) <= budget and (found[0].width, found[0].height) == (336, 252)
        assert max(Image.open(io.BytesIO(base64.b64decode(found[0].data))).size) == pixels
        sizes.append(pixels)
    assert sizes[0] == 320 > sizes[1] > sizes[2]
    assert thumbnails(files, 1.2e4, threads=3) == thumbnails(files, 1.2e4)
    with pytest.raises(DataError, match="6 images of 48 pixels don't fit 0.001 MB; raise --max-mb"):
        thumbnails(files, 1e3)


def test_json_may_stand_in_a_page_whatever_it_holds():
    text = as_script([HOSTILE, "\ud800"])
    assert not re.search("[<>&\u2028\u202e]", text) and json.loads(text) == [HOSTILE, "\ud800"]


def test_a_run_that_was_moved_aside_is_no_column(results):
    """Its scores name the run that they were made of, which is trained again."""
    shutil.copytree(results / "images/r", results / "images/r.replaced-0123456789abcdef")
    for benchmark in ("geneval", "old"):
        shutil.copytree(results / "scores/geneval/r", results / f"scores/{benchmark}/r.replaced-0123456789abcdef")
    _, data, _ = page_of(results)
    assert [one["label"] for one in data["columns"]] == ["base", "r @ 4"]
    assert benchmarks_in(results) == ["geneval"]


def test_the_command_names_what_is_missing(results, tmp_path):
    def run(*words: str):
        result = CliRunner().invoke(app, ["browse", *map(str, words)])
        return result.output if result.exit_code == 0 else result.exception

    told = str(run(results))
    assert "no config/DIGEST.yaml that its scores were made with; give --config FILE" in told
    assert "no scores/BENCHMARK/RUN/STEP.json in it" in str(run(tmp_path))
    out = run(results, "--config", SHAPES, "--out", tmp_path / "out")
    assert out.startswith(f"{tmp_path / 'out/geneval.html'} (0.0 MB)") and (tmp_path / "out/geneval.html").is_file()
    failed = run(results, "--config", SHAPES, "--run", "s")
    assert isinstance(failed, ConfigError) and "--run s: has no scores of geneval" in str(failed)
    (results / "images/r/4/geneval/shards/0.jsonl").unlink()
    assert "images/r/4/geneval: no shards/*.jsonl that lists images" in str(run(results, "--config", SHAPES))
