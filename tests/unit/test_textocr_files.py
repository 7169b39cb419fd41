"""Text rendering: prompt files and the image folder."""

from __future__ import annotations

import pytest
from PIL import Image

from promptecho.benchmarks.listing import prompts_digest
from promptecho.benchmarks.registry import load_layout
from promptecho.benchmarks.textocr.layout import list_images
from promptecho.benchmarks.textocr.prompts import ALL, TextOcrPrompt, read_prompts
from promptecho.benchmarks.textocr.rules import language_of
from promptecho.errors import DataError
from promptecho.files import read_jsonl, write_jsonl

LONGTEXT = {
    "category": "sign", "length": "short", "prompt": 'A board says "OPEN".', "text": ["OPEN"], "text_length": 1,
    "prompt_id": 12,
}  # fmt: skip
ROWS = [
    LONGTEXT,
    {"data_id": "a/../b", "prompt": "A wall.", "text": []},
    {"data_id": 7, "prompt": "海报写着“新年”。", "text": ["新年", " a "], "category": "mine", "more": None},
    {"data_id": "judge", "prompt": "A sign, you know which."},
]
CATEGORIES = ("sign", "label", "print", "webpage", "slide", "poster", "caption", "dialogue")


def fill(layout, images: int) -> None:
    for p in range(len(layout.ids)):
        for i in range(images):
            path = layout.image_path(p, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (p, i, 0)).save(path)
    layout.describe(range(len(layout.ids)))


def test_one_format_reads_longtext_bench_and_our_own(tmp_path):
    path = tmp_path / "p.jsonl"
    write_jsonl(path, ROWS)
    prompts = read_prompts(path)
    assert prompts == [
        TextOcrPrompt("12", 'A board says "OPEN".', ("OPEN",), "sign", "short"),
        TextOcrPrompt("a/../b", "A wall.", ()),
        TextOcrPrompt("7", "海报写着“新年”。", ("新年", "a"), "mine"),
        TextOcrPrompt("judge", "A sign, you know which.", None),
    ]
    assert [prompt.group for prompt in prompts] == ["sign", ALL, "mine", ALL]
    write_jsonl(path, [prompt.row() for prompt in prompts])
    assert read_prompts(path) == prompts
    assert len({prompts_digest(prompts), prompts_digest(prompts[::-1]), prompts_digest(prompts[:3])}) == 3


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "holds no prompts"),
        ([{"prompt": "x", "text": []}], "prompt 1: data_id None is no id"),
        ([{"data_id": True, "prompt": "x", "text": []}], "data_id True is no id"),
        ([{"data_id": "\ud800", "prompt": "x", "text": []}], "prompt 1: data_id .* is no text"),
        ([{"data_id": 1, "prompt": " ", "text": []}], r"prompt 1 \(data_id '1'\): prompt is missing or empty"),
        ([{"data_id": 1, "prompt": "x", "text": "x"}], r"prompt 1 \(data_id '1'\): text is no list of texts"),
        ([{"data_id": 1, "prompt": "x", "text": ["a", " "]}], "text is no list of texts"),
        ([{"data_id": 1, "prompt": "x", "text": ["\0"]}], "text holds a NUL"),
        ([{"data_id": 1, "prompt": "x"}, {"prompt_id": "1", "prompt": "y"}], "prompt 2 .*the id occurs twice"),
    ],
)
def test_faulty_prompts_are_named(tmp_path, rows, problem):
    import json

    path = tmp_path / "p.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(DataError, match=problem) as error:
        read_prompts(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "language"), [("text_prompts", "en"), ("text_prompts_zh", "zh")])
def test_longtext_bench_as_published(shared, name, language):
    prompts = read_prompts(shared / f"benchmarks/mirror/longtext_bench/{name}.jsonl")
    assert len(prompts) == 160
    assert {group: sum(p.group == group for p in prompts) for group in CATEGORIES} == dict.fromkeys(CATEGORIES, 20)
    assert all(prompt.text for prompt in prompts)
    assert {language_of(prompt.text) for prompt in prompts} == {language}


def test_the_folder_lists_prompt_text_and_file(tmp_path):
    path, root = tmp_path / "p.jsonl", tmp_path / "root"
    write_jsonl(path, ROWS)
    layout = load_layout("textocr", path, root, 2)
    assert layout.ids == ["12", "a/../b", "7", "judge"] and layout.texts[1] == "A wall."
    fill(layout, 2)
    assert read_jsonl(root / "metadata.jsonl")[:3] == [
        {"data_id": "12", "prompt": LONGTEXT["prompt"], "text": ["OPEN"], "category": "sign", "length": "short",
         "filename": "00000_00000.png"},
        {"data_id": "12", "prompt": LONGTEXT["prompt"], "text": ["OPEN"], "category": "sign", "length": "short",
         "filename": "00000_00001.png"},
        {"data_id": "a/../b", "prompt": "A wall.", "text": [], "filename": "00001_00000.png"},
    ]  # fmt: skip
    entries = list_images(root, read_prompts(path), 2)
    assert entries == list_images(root)  # the listing alone tells everything
    assert [(e.prompt.data_id, e.image_index) for e in entries][:3] == [("12", 0), ("12", 1), ("a/../b", 0)]
    write_jsonl(path, ROWS[:2])
    with pytest.raises(DataError, match=r"its 4 prompts are not the 2 of the prompt set, e\.g\. 'judge' \('A sign"):
        list_images(root, read_prompts(path), 2)
    load_layout("textocr", path, root, 1).remove_stale()
    assert sorted(p.name for p in root.iterdir()) == ["00000_00000.png", "00001_00000.png"]


def test_images_of_numbered_prompts_bear_the_number_that_the_public_evaluator_reads(tmp_path):
    path, root = tmp_path / "p.jsonl", tmp_path / "root"
    write_jsonl(path, [LONGTEXT, {**LONGTEXT, "prompt_id": 199}, {**LONGTEXT, "prompt_id": 100000}])
    layout = load_layout("textocr", path, root, 1)
    fill(layout, 1)
    names = [entry.path.name for entry in list_images(root, read_prompts(path), 1)]
    assert names == ["00012_00000.png", "00199_00000.png", "100000_00000.png"]
    assert [int(name.split("_")[0]) for name in names] == [12, 199, 100000]
    layout.remove_stale()
    assert len(list_images(root)) == 3
    write_jsonl(path, [{"data_id": "1", "prompt": "x", "text": []}, {"data_id": "01", "prompt": "y", "text": []}])
    layout = load_layout("textocr", path, root, 1)  # 1 and 01 would be one number
    assert [layout.image_path(p, 0).name for p in (0, 1)] == ["00000_00000.png", "00001_00000.png"]


def test_prompts_of_shapes():
    from promptecho.benchmarks.textocr.prompts import parse_prompt
    from promptecho.benchmarks.textocr.shapes import textocr_prompts
    from promptecho.shapes.tokenizer import build_tokenizer
    from promptecho.shapes.world import COLORS

    rows = textocr_prompts(5, 3)
    assert rows == textocr_prompts(5, 3) and rows != textocr_prompts(5, 4)
    prompts = [parse_prompt(row, "row") for row in rows]
    assert [len(prompt.text) for prompt in prompts] == [0] * 5 + [1] * 5
    assert len({prompt.prompt for prompt in prompts}) == 10
    assert all(f'the word "{prompt.text[0]}"' in prompt.prompt and prompt.text[0] in COLORS for prompt in prompts[5:])
    assert len(textocr_prompts(1000, 0)) == 36 + 180
    tokenizer = build_tokenizer()
    for prompt in prompts:  # words that the tokenizer never saw come back unchanged
        ids = tokenizer(prompt.prompt)["input_ids"]
        assert tokenizer.decode(ids) == prompt.prompt and len(ids) < 64
