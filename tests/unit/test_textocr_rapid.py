"""Text rendering read by RapidOCR with its real weights, on text that Pillow renders."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict

import pytest
from textocr_world import draw, write_folder

from promptecho.benchmarks.registry import load_scorer
from promptecho.benchmarks.scoring import ImageFolder, ScoringOptions
from promptecho.benchmarks.textocr.rapid import RapidReader, TextLine, reading_order
from promptecho.benchmarks.textocr.scorer import summary_of
from promptecho.errors import ConfigError, DataError, ModelError
from promptecho.files import write_jsonl
from promptecho.gallery.drawing import draw_poster
from promptecho.gallery.posters import Poster
from promptecho.gallery.text_oracle import read_poster

IMAGES = {
    "right": (["OPEN DAILY"], "sign", draw("OPEN DAILY")),
    "two-lines": (["Fresh bread", "Since 1998"], "sign", draw("Fresh bread", "Since 1998")),
    "broken-line": (["Fresh bread every day"], "poster", draw("Fresh bread", "every day")),
    "other-order": (["Since 1998", "Fresh bread"], None, draw("Fresh bread", "Since 1998")),
    "wrong-letter": (["OPEN DAILY"], "sign", draw("OPEM DAILY")),
    "extra-word": (["Fresh bread"], "poster", draw("Fresh bread", "today")),
    "nothing-shown": (["OPEN"], None, draw()),
    "nothing-required": ([], None, draw("hello")),
}
EDITS = {"wrong-letter": 1, "extra-word": 5, "nothing-shown": 4}


@pytest.fixture(scope="module")
def scorer():
    pytest.importorskip("rapidocr", reason="NOT TESTED: rapidocr is not installed (extra `score`)")
    pytest.importorskip("onnxruntime", reason="NOT TESTED: onnxruntime is not installed (extra `score`)")
    with pytest.MonkeyPatch.context() as patch:

        def connect(*_):
            raise AssertionError("RapidOCR wants the network")

        patch.setattr(socket.socket, "connect", connect)
        yield load_scorer("textocr", ScoringOptions("rapidocr"))


@pytest.fixture(scope="module")
def scored(scorer, tmp_path_factory):
    rows = [
        {"data_id": name, "prompt": name, "text": text} | ({"category": category} if category else {})
        for name, (text, category, _) in IMAGES.items()
    ]
    return scorer.score(write_folder(tmp_path_factory.mktemp("ocr"), rows, [image for _, _, image in IMAGES.values()]))


def test_images_are_right_to_the_letter_or_wrong(scorer, scored):
    assert {item.prompt_id: item.outcome for item in scored.items} == {
        name: 0.0 if name in EDITS else 1.0 for name in IMAGES
    }
    assert [item.group for item in scored.items] == ["sign", "sign", "poster", "all", "sign", "poster", "all", "all"]
    assert not any(item.failed for item in scored.items)
    assert scorer.judge_model.startswith("RapidOCR 3.") and scorer.judge_model.endswith("PP-OCRv6 small")


def test_raw_records_tell_what_was_read_and_give_the_summary_again(scored):
    raw = {row["prompt_id"]: row for row in scored.raw}
    assert {name: row["edits"] for name, row in raw.items() if row["edits"]} == EDITS
    assert [line["text"] for line in raw["two-lines"]["lines"]] == ["Fresh bread", "Since 1998"]
    assert raw["wrong-letter"]["reason"] == "1 edits from what is required; found ['OPEM DAILY']"
    assert [line["text"] for line in raw["nothing-required"]["lines"]] == ["hello"]  # read, and not counted
    first = raw["right"]["lines"][0]
    assert first["score"] > 0.9 and first["box"][0] == pytest.approx(20, abs=8)
    again = json.loads(json.dumps(scored.raw, allow_nan=False))
    assert summary_of(again) == scored.summary
    characters = sum(len("".join(text).replace(" ", "")) for text, _, _ in IMAGES.values())
    told = [row for row in scored.raw if row["characters"]]
    assert [part.group for part in scored.parts] == ["image_error_rate"] * len(told) and len(told) < len(scored.raw)
    assert scored.summary == {
        "overall": 5 / 8,
        "exact_match": 5 / 8,
        "character_error_rate": sum(EDITS.values()) / characters,
        "image_error_rate": pytest.approx(sum(row["edits"] / row["characters"] for row in told) / len(told)),
        "word_recall": (2 + 4 + 4 + 4 + 1 + 2 + 0) / (2 + 4 + 4 + 4 + 2 + 2 + 1),
    }


def test_another_reader_reads_the_same(scored):
    reader = RapidReader()
    read = [asdict(line) for line in reader(IMAGES["two-lines"][2])]
    assert read == scored.raw[1]["lines"]
    assert [line.text for line in reader(draw("left", "right", columns=True))] == ["left", "right"]


def test_a_damaged_image_fails_and_is_no_zero(scorer, tmp_path):
    rows = [{"data_id": name, "prompt": "x", "text": ["OPEN"]} for name in ("a", "b")]
    folder = write_folder(tmp_path, rows, [draw("OPEN"), draw("OPEN")])
    damaged = folder.root / "00001_00000.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    scored = scorer.score(folder)
    assert [(item.outcome, item.failed) for item in scored.items] == [(1.0, False), (None, True)]
    assert scored.raw[1]["reason"].startswith(f"{damaged}: not a readable image")
    assert scored.summary["overall"] == 1.0


def test_a_prompt_that_does_not_tell_its_text_needs_a_judge(scorer, tmp_path):
    folder = write_folder(tmp_path, [{"data_id": "a", "prompt": "x"}], [draw()])
    with pytest.raises(DataError, match="prompt 'a' has no `text`.*use backend judge"):
        scorer.score(folder)
    assert scorer.estimate(ImageFolder(folder.root)).calls == 0
    write_jsonl(folder.prompts, [{"data_id": "a", "prompt": "another"}])
    with pytest.raises(DataError, match="are not the 1 of the prompt set"):
        scorer.score(folder)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (ScoringOptions("rapidocr", mode="fixed"), ConfigError, "textocr has only 'official'"),
        (ScoringOptions("rapidocr", model="models/x"), ConfigError, "rapidocr has its model in its package"),
        (ScoringOptions("oracle"), ModelError, "'oracle' is unknown; known backends: judge, rapidocr"),
        (ScoringOptions("judge"), ConfigError, "backend judge: which one"),
    ],
)
def test_options_that_make_no_sense(options, error, message):
    with pytest.raises(error, match=message):
        load_scorer("textocr", options)


def test_reading_order_is_rows_from_the_top_each_from_the_left():
    def line(text: str, x: float, y: float, height: float = 20) -> TextLine:
        return TextLine(text, 1.0, (x, y, x + 50, y + height))

    lines = [line("d", 10, 60), line("b", 80, 8), line("e", 70, 55, 40), line("a", 10, 12), line("c", 5, 33)]
    assert "".join(found.text for found in reading_order(lines)) == "abcde"
    assert reading_order([]) == []
    slanted = [line(str(k), 60 * k, 8 * k) for k in range(3)]
    assert [found.text for found in reading_order(slanted[::-1])] == ["0", "1", "2"]


def test_it_reads_the_titles_of_the_galleries_posters_as_their_own_oracle_does(scorer):
    """As drawn, 64 pixels wide with titles 14 pixels high; figures for smaller text: docs/text-rendering.md."""
    reader = RapidReader()
    agreed = 0
    for word in ("MOKA", "ZEBU", "HAVEN", "4729", "TAXED", "PUMA"):
        image = draw_poster(Poster("red", (("main_title", word),)))
        assert [text for _, text in read_poster(image).poster.texts] == [word]
        agreed += [line.text for line in reader(image)] == [word]
    assert agreed >= 4
