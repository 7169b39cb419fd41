"""The page of coloured words: from the command, with texts that would like to be code, and colours that can be read."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest
from forked import ended
from tiny_experiment import Experiment
from tiny_vlm import image, shared_folder
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.files import read_json, write_jsonl
from promptecho.reading.scales import change_step, log_prob_step, number
from promptecho.reading.template import DARK, LIGHT

PROMPT = 'A <script>alert("x")</script> & "two" {{ 7 * 7 }} e\u0301 …\n\nred circles.'


class Seen(HTMLParser):
    """Tags and attributes of a page, and the text of its prompts."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.words: list[dict] = []
        self.links: list[str] = []
        self.prompts: list[str] = []
        self.names: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        self.tags.append(tag)
        self.links += [values[key] for key in ("src", "href") if key in values]
        kind = (values.get("class") or "").split()
        if tag == "p":
            self._into = {"prompt": self.prompts, "name": self.names}.get(kind[0] if kind else "")
            if self._into is not None:
                self._into.append("")
        if tag == "span" and "w" in kind:
            self.words.append(values)

    def handle_endtag(self, tag):
        if tag == "p":
            self._into = None

    def handle_data(self, data):
        if self._into is not None:
            self._into[-1] += data


def test_command_writes_one_page_that_shows_texts_as_they_are(tmp_path):
    files = [tmp_path / "a.png", tmp_path / "<script>x&.png"]
    for index, file in enumerate(files):
        image(index, (32 + 300 * index, 32)).save(file)
    out = tmp_path / "new" / "page.html"
    asked = ["reward", "--vlm", str(shared_folder()), *map(str, files), "--label", PROMPT, "--set", "reduction=sum"]
    rows = json.loads(ended([*asked, "--json", "--html", str(out)])[0])
    text = out.read_text()
    seen = Seen(text)
    assert "script" not in seen.tags and "link" not in seen.tags and "http" not in text
    assert seen.prompts == [PROMPT, PROMPT]
    assert seen.names == [str(file) for file in files]
    assert [link[:15] for link in seen.links] == ["data:image/png;", "data:image/jpeg"]
    words = [word for row in rows for word in row["words"]]
    assert [word["data-p"] for word in seen.words] == [number(word["log_prob"]) for word in words]
    assert [word["data-c"] for word in seen.words] == [number(word["change"], sign=True) for word in words]
    for row in rows:
        assert sum(word["log_prob"] for word in row["words"]) == pytest.approx(sum(row["log_probs"]))
        assert row["reward"] == pytest.approx(sum(row["log_probs"]))  # as asked for: not their mean
        for word in row["words"]:
            assert PROMPT[word["start"] : word["end"]] == word["text"]
            assert word["change"] == pytest.approx(word["log_prob"] - word["blank_log_prob"])


def test_command_refuses_what_has_no_words_and_a_blank_that_is_no_colour(tmp_path):
    picture = tmp_path / "a.png"
    image(0).save(picture)
    asked = ["reward", "--vlm", str(shared_folder()), str(picture), "--label", "A star"]
    out = tmp_path / "page.html"
    assert "--html: inferscore reads no words" in " ".join(
        ended([*asked, "--name", "inferscore", "--html", str(out)], code=2)[1].replace("│", " ").split()
    )
    assert "blank 'paper': give mean, or a colour" in ended([*asked, "--html", str(out), "--blank", "paper"], code=1)[1]
    assert not out.exists()


def test_scales_and_numbers():
    assert [log_prob_step(value) for value in (0.0, -0.1, -0.11, -0.7, -9.0)] == [0, 0, 1, 2, 6]
    assert [change_step(value) for value in (0.0, 0.2, -0.2, 0.3, -0.3, 5.0, -5.0)] == [0, 0, 0, 1, -1, 4, -4]
    assert [number(value) for value in (-0.001, -1.234, 0.0)] == ["0.00", "−1.23", "0.00"]
    assert [number(value, sign=True) for value in (0.001, 1.234, -1.0)] == ["0.00", "+1.23", "−1.00"]


@pytest.mark.parametrize("scale", [LIGHT, DARK])
def test_words_can_be_read_on_every_colour(scale):
    def luminance(color: str) -> float:
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        parts = [int(digits[k : k + 2], 16) / 255 for k in (0, 2, 4)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    for ground, ink in scale.values():
        low, high = sorted((luminance(ground), luminance(ink)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ground, ink)  # WCAG 2.1, AA
    # Each scale goes one way in brightness, so that it keeps its order without colours.
    for names in (["p1", "p2", "p3", "p4", "p5", "p6"], ["c1", "c2", "c3", "c4"], ["c-1", "c-2", "c-3", "c-4"]):
        steps = [luminance(scale[name][0]) for name in names]
        assert steps in (sorted(steps), sorted(steps, reverse=True))


def test_samples_are_read_at_every_checkpoint_by_the_vlm_of_the_run(tmp_path):
    prompts, folders = ["A red circle.", "two </p><script> squares", "A star"], []
    for run, step in (("base", 0), ("r", 2), ("r", 8)):
        folders.append(tmp_path / f"exp/images/{run}/{step}/set")
        listing = [
            {"prompt_id": f"p{p}", "image_index": 0, "prompt": prompt, "filename": f"{p}.png", "sha256": ""}
            for p, prompt in enumerate(prompts)
        ]
        write_jsonl(folders[-1] / "shards/0.jsonl", listing)
        for p in range(len(prompts)):
            image(10 * step + p).save(folders[-1] / f"{p}.png")
    config = Experiment(tmp_path / "files").config(sections={"rewards": [{"name": "echo", "query": "What is it?"}]})
    call = ["figures", "words", *map(str, folders), "--config", str(config), "--prompts", "2"]
    result = CliRunner().invoke(app, [*call, "--out", str(tmp_path / "words.html")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    seen, told = Seen((tmp_path / "words.html").read_text()), read_json(tmp_path / "words.json")
    assert "script" not in seen.tags
    assert told["query"] == "What is it?" and told["columns"] == seen.names[:3] == ["base", "r @ 2", "r @ 8"]
    assert seen.prompts == [one["prompt"] for one in told["shown"] for _ in range(3)]
    words = [word for row in told["read"] for cell in row for word in cell["words"]]
    assert [word["data-p"] for word in seen.words] == [number(word["log_prob"]) for word in words]
    for row in told["read"]:
        for cell in row[1:]:
            assert len({word["change"] for word in cell["words"]} - {word["change"] for word in row[0]["words"]}) > 0
    [base, first] = told["read"][0][:2]
    from_base = [a["log_prob"] - b["log_prob"] for a, b in zip(first["words"], base["words"], strict=True)]
    shown = [word["data-b"] for word in seen.words if "data-b" in word]
    assert shown[: len(from_base)] == [number(value, sign=True) for value in from_base]


def test_samples_are_read_as_the_settings_of_the_reward_say(tmp_path):
    folder, files = tmp_path / "exp/images/r/2/heldout", tmp_path / "files"
    row = {"prompt_id": "p", "image_index": 0, "prompt": "A circle.", "filename": "p.png", "sha256": ""}
    write_jsonl(folder / "shards/0.jsonl", [row])
    image(3).save(folder / "p.png")
    write_jsonl(tmp_path / "labels.jsonl", [{"data_id": "p", "label": {"main_title": "GO"}}])
    reward = {
        "name": "echo",
        "echo": {"reduction": "sum", "include_eos": True},
        "label": str(tmp_path / "labels.jsonl"),
    }
    config = Experiment(files).config(sections={"rewards": [reward]})
    call = ["figures", "words", str(folder), "--config", str(config), "--out", str(tmp_path / "words.html")]
    assert CliRunner().invoke(app, call, catch_exceptions=False).exit_code == 0
    seen, told = (tmp_path / "words.html").read_text(), read_json(tmp_path / "words.json")
    label = '{"main_title": "GO"}'
    [cell] = told["read"][0]
    assert "".join(cell["words"][-1]["text"]) == "" and cell["words"][-1]["start"] == len(label)  # the end token
    asked = ["reward", str(folder / "p.png"), "--label", label, "--config", str(config), "--json"]
    [same] = json.loads(CliRunner().invoke(app, asked, catch_exceptions=False).output)
    assert same["log_probs"] == pytest.approx(cell["log_probs"], abs=1e-4)
    assert f"reward {number(same['reward'])} (sum of {len(cell['tokens'])} tokens)" in seen
    write_jsonl(tmp_path / "labels.jsonl", [{"data_id": "q", "label": "x"}])
    with pytest.raises(DataError, match=r"labels.jsonl: no label for 1 of 1 prompts of rewards.0 \(p\)"):
        CliRunner().invoke(app, call, catch_exceptions=False)
