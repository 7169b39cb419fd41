"""Prompts, labels and lists as people's tools save them: the same texts in every form, or a true refusal."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptecho.benchmarks.captions.layout import list_images
from promptecho.benchmarks.captions.prompts import CaptionPrompt
from promptecho.benchmarks.captions.prompts import read_prompts as read_benchmark
from promptecho.benchmarks.geneval.prompts import read_prompts as read_geneval
from promptecho.captions.inputs import list_images as list_of_images
from promptecho.captions.prompts import read_prompts
from promptecho.config.rewards import RewardSection
from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.templates import read_template
from promptecho.text_files import read_lines, read_rows, read_text
from promptecho.train.data import TrainingPrompt
from promptecho.train.setup import load_heldout, load_labels

TEXTS = [
    "A red circle, above; a blue square.", "café at night, naïve style", "三个红色的圆", "a cat 🐈‍⬛ on a mat",
    'A sign that says "stop"', "A yellow star — left of a grey ring.", "two\u2028lines\x0bof\x85one text",
]  # fmt: skip
ENCODINGS = {
    "utf-8": lambda text: text.encode(),
    "utf-8 with mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "utf-16-le": lambda text: codecs.BOM_UTF16_LE + text.encode("utf-16-le"),
    "utf-16-be": lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    "utf-32-le": lambda text: codecs.BOM_UTF32_LE + text.encode("utf-32-le"),
}


def table(rows: list[list[str]], delimiter: str, end: str) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator=end).writerows(rows)
    return stream.getvalue()


def forms(texts: list[str], end: str) -> dict[str, str]:
    """The same prompts as file name -> text."""
    named = [[f"p{i}", text] for i, text in enumerate(texts)]
    return {
        "p.txt": end.join(texts),
        "P.TXT": end.join([*texts, ""]),
        "p.jsonl": "".join(json.dumps({"caption": text}, ensure_ascii=False) + end for text in texts),
        "q.JSONL": "".join(json.dumps({"prompt": text}) + end for text in texts),
        "r.jsonl": end.join(json.dumps({"text": text, "id": f"p{i}"}) for i, text in enumerate(texts)),
        "p.csv": table([["id", "Prompt"], *named], ",", end),
        "Q.CSV": table([["data_id", "caption", "note"], *([*row, ""] for row in named)], ";", end),
        "r.csv": f"sep=;{end}" + table([["index", "text"], *named], ";", end),
        "s.csv": table([["prompt"], *([text] for text in texts)], ",", end),
        "t.csv": table([["prompt"], *([text] for text in texts)], ";", end),
        "u.csv": table([["", "prompt"], *([str(i), text] for i, text in enumerate(texts)), ["", ""]], ",", end),
        "p.tsv": table([["prompt", "id"], *([text, name] for name, text in named)], "\t", end),
        "excel unicode.csv": table([["id", "prompt"], *named], "\t", end),
    }


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_same_prompts_in_every_form(tmp_path, encoding, end):
    for name, text in forms(TEXTS, end).items():
        (tmp_path / name).write_bytes(ENCODINGS[encoding](text))
        rows = read_prompts(tmp_path / name)
        assert [row.caption for row in rows] == TEXTS, name
        numbered = [f"{i + 1:06d}" for i in range(len(TEXTS))]
        assert [row.image_id for row in rows] in (numbered, [f"p{i}" for i in range(len(TEXTS))]), name


WRITABLE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\ufeff"), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.lists(WRITABLE.filter(str.strip), min_size=1, max_size=4), st.sampled_from(sorted(ENCODINGS)))
def test_any_text_comes_back_from_rows(tmp_path_factory, texts, encoding):
    folder = tmp_path_factory.mktemp("rows")
    for name, text in (
        ("a.jsonl", "".join(json.dumps({"prompt": one}) + "\r\n" for one in texts)),
        ("a.csv", table([["prompt", "x"], *([one, ""] for one in texts)], ";", "\r\n")),
    ):
        (folder / name).write_bytes(ENCODINGS[encoding](text))
        assert [row["prompt"] for _, row in read_rows(folder / name)] == texts


def test_what_a_mark_is_and_what_not(tmp_path):
    path = tmp_path / "p.txt"
    path.write_bytes(codecs.BOM_UTF8 + b"one\n" + codecs.BOM_UTF8 + b"two\n")  # two files put together
    assert read_lines(path) == [(1, "one"), (2, "two")]
    path.write_text("a\ufeffb")  # inside a text it is the author's
    assert read_text(path) == "a\ufeffb"
    path.write_bytes(codecs.BOM_UTF8)
    with pytest.raises(DataError, match="holds no prompts"):
        read_prompts(path)


@pytest.mark.parametrize(("name", "content", "message"), [
    ("a.txt", "A star\ncafé\n".encode("latin-1"), r"a.txt:2: not UTF-8: byte 0xe9 behind 'caf', so it is in another"),
    ("b.txt", "x\r\n“A star”".encode("cp1252"), r"b.txt:2: not UTF-8: byte 0x93 behind '', so .*Windows-1252.*UTF-8"),
    ("c.jsonl", '{"prompt": "三"}\n'.encode("gbk"), r"c.jsonl:1: not UTF-8: byte 0xc8"),
    ("d.csv", "id;prompt\n1;Ein großer\n".encode("cp1252"), r"d.csv:2: not UTF-8: byte 0xdf behind '1;Ein gro'"),
    ("e.txt", "A star".encode("utf-16-le"), r"e.txt: a quarter of it is zero bytes: UTF-16 without its byte order"),
    ("f.txt", b"ok\ncaf" + b"\xc3", r"f.txt:2: not UTF-8: byte 0xc3 behind 'caf' begins a letter that is cut"),
    ("g.txt", codecs.BOM_UTF16_LE + "ab".encode("utf-16-le") + b"\xff", r"g.txt:1: not UTF-16-LE behind 'ab'"),
    ("h.csv", b'id,prompt\n1,"A star\n2,A ring\n', r"h.csv:\d: not valid CSV .unexpected end of data.; double quotes"),
    ("h1.csv", b'prompt\n"A star", red\n', r"h1.csv:2: not valid CSV .the end of the line expected after"),
    ("i.csv", b"id,prompt\n1,A star\n2,A ring, red\n3,a,b\n", r":3: 3 cells, .* 2 columns; .*\n.*i.csv:4: 3 cells"),
    ("j.csv", b"prompt,id,prompt\na,b,c\n", r"j.csv:1: two columns are named 'prompt'"),
    ("k.csv", b"A star\nA ring\n", r"k.csv: .*these names: 'A star'; rename .* .the first row must name the columns"),
    ("l.jsonl", b'{"a": 1}\n["x"]\n{"b"\n', r":2: expected a JSON object, found list\n.*l.jsonl:3: not valid JSON"),
    ("m.csv", b"prompt\n\xef\xbb\xbf\n", r"m.csv: holds no prompts; its first row must name the columns"),
    ("o.txt", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", r"o.txt: a pointer of Git LFS"),
    ("p.txt", b"\n<!DOCTYPE html>\n<p>Sign in\n", r"p.txt: a web page, not text; its address wants a login"),
    ("q.jsonl", gzip.compress(b'{"prompt": "A star"}\n', mtime=0), r"q.jsonl: compressed with gzip, so not text"),
    ("r.csv", b"PK\x03\x04" + bytes(60), r"r.csv: a zip archive or an office document .*; unpack it, or export"),
    ("s.jsonl", b'{"prompt": "a"}\n{"x": ' + b"[" * 100_000, r"s.jsonl:2: not valid JSON .nested too deep"),
    ("t.jsonl", b'{"id": ' + b"9" * 5000 + b"}\n[]\n", r"t.jsonl:1: .* .a number of too many .*\n.*t.jsonl:2: exp"),
    ("u.csv", b"id,prompt\n1,a\nid,prompt\n2,b\nid,prompt\n", r"u.csv:3: the first row, .* once more; .*\n.*csv:5:"),
    ("v.txt", "A star\n\u200b\n\u2060\u00ad\n".encode(), r"v.txt:2: .* nothing that can be seen.*\n.*v.txt:3: "),
    ("w.jsonl", b'{"text": "\\u200e \\ufeff"}\n', r"w.jsonl:1: prompt 1 .data_id '000001'.: the caption holds nothing"),
    ("n.json", b"[]", r"n.json: give prompts as .txt .one a line., or as .jsonl, .csv or .tsv"),
])  # fmt: skip
def test_what_can_not_be_read_is_named_by_its_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_prompts(tmp_path / name)


def test_pipes_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "p.jsonl")
    with pytest.raises(DataError, match=r"p\.jsonl: a pipe or device, not a plain file; save what comes from it"):
        read_rows(tmp_path / "p.jsonl")
    (tmp_path / "null.txt").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"null\.txt: a pipe or device"):
        read_prompts(tmp_path / "null.txt")


def test_texts_of_any_length(tmp_path):
    long = "star " * 60_000
    (tmp_path / "p.txt").write_text(f"a\n{long}\n")
    (tmp_path / "p.csv").write_text(f'prompt\na\n"{long}"\n')
    assert read_prompts(tmp_path / "p.csv") == read_prompts(tmp_path / "p.txt")


def test_all_faulty_prompts_are_named_at_once(tmp_path):
    rows = [{"id": 1, "prompt": "a"}, {"id": 1, "prompt": "b"}, {"prompt": " "}, {"Title": "c"}, {"text": 7},
            {"id": True, "prompt": "d"}, {"prompt": "e\0"}, {"prompt": "f", "caption": "g"}, {"Text": "h", "text": "i"},
            {"prompt": "j", "text": " j", "caption": ""}, {"text": "k", "prompt": ["l"]}]  # fmt: skip
    write_jsonl(tmp_path / "p.jsonl", rows)
    with pytest.raises(DataError) as caught:
        read_prompts(tmp_path / "p.jsonl")
    lines = str(caught.value).split("\n")
    told = ["occurs twice", "caption is empty", "these names: 'Title'", "is no text", "the id is no text", "NUL",
            "'prompt' and 'caption' differ (prompt: 'f', caption: 'g'); keep one", "'Text' and 'text' differ",
            "caption is empty", "is no text"]  # fmt: skip
    assert len(lines) == len(told)
    for number, (line, word) in enumerate(zip(lines, told, strict=True), start=2):
        assert line.startswith(f"{tmp_path}/p.jsonl:{number}: prompt {number} ") and word in line
    write_jsonl(tmp_path / "p.jsonl", [{"prompt": "a"}, *({"prompt": ""} for _ in range(30))])
    with pytest.raises(DataError, match=r"prompt 21 .*\n\.\.\. and 10 more \(30 faulty prompts in all\)$"):
        read_prompts(tmp_path / "p.jsonl")


def test_a_second_text_that_says_the_same_or_is_none_is_let_be(tmp_path):
    rows = [{"prompt": "a", "caption": "a "}, {"prompt": "b", "text": ["S", "T"]}, {"caption": "c", "prompt": None},
            {"prompt": "d", "text": ""}]  # fmt: skip
    write_jsonl(tmp_path / "p.jsonl", rows)
    assert [row.caption for row in read_prompts(tmp_path / "p.jsonl")] == list("abcd")
    (tmp_path / "p.csv").write_text("prompt,text\na,\nb,b\nc,d\n")
    with pytest.raises(DataError, match=r"p.csv:4: .*'prompt' and 'text' differ") as caught:
        read_prompts(tmp_path / "p.csv")
    assert "\n" not in str(caught.value)


def test_all_that_people_bring_goes_through_the_reader(tmp_path):
    mark = codecs.BOM_UTF16_LE
    (tmp_path / "l.CSV").write_bytes(mark + 'Id;Label\r\na;"{""x"": 1}"\r\nb;zwei\r\n'.encode("utf-16-le"))
    entry = RewardSection(label=str(tmp_path / "l.CSV"))
    assert load_labels(entry, 0, [TrainingPrompt("a", "x")]) == {"a": '{"x": 1}', "b": "zwei"}
    (tmp_path / "l.CSV").write_text("data_id,label\na,x\nb,\na,y\n,z\n")
    with pytest.raises(DataError, match=r"l.CSV:3: needs data_id and a label.*\n.*l.CSV:4: a has a label already"):
        load_labels(entry, 0, [])
    (tmp_path / "h.txt").write_bytes(codecs.BOM_UTF8 + b"one\r\ntwo\r\n")
    assert load_heldout(tmp_path / "h.txt", 1) == [TrainingPrompt("000002", "two")]
    assert read_benchmark(tmp_path / "h.txt")[0] == CaptionPrompt("000001", "one")
    row = '{"tag": "single_object", "include": [{"class": "cup", "count": 1}], "prompt": "a cup"}\r\n'
    (tmp_path / "g.jsonl").write_bytes(mark + row.encode("utf-16-le"))
    assert read_geneval(tmp_path / "g.jsonl")[0].prompt == "a cup"
    (tmp_path / "t.txt").write_bytes(mark + "Is {prompt} true?\r\nSay é.\r\n".encode("utf-16-le"))
    assert read_template(tmp_path / "t.txt").text == "Is {prompt} true?\nSay é."


def test_lists_of_images_in_every_form(tmp_path):
    names = ["a.png", "b c.png", "日本.png"]
    rows = [[f"i{k}", name] for k, name in enumerate(names)]
    for end in ("\n", "\r\n", "\r"):
        texts = {
            "L.TXT": end.join(names),
            "l.JSONL": end.join(json.dumps({"image_id": i, "path": name}) for i, name in rows),
            "l.csv": table([["image_id", "path"], *rows], ";", end),
        }
        for name, text in texts.items():
            for encoding in ("utf-8", "utf-8 with mark", "utf-16-le"):
                (tmp_path / name).write_bytes(ENCODINGS[encoding](text))
                found = list_of_images(tmp_path / name)
                assert [item.path for item in found] == [tmp_path / one for one in names], (name, encoding, end)
                assert [item.image_id for item in found] in (names, [i for i, _ in rows])


def test_folders_of_the_authors_inference_script(tmp_path):
    """`index` is the place in the script's own shuffle; against a prompt set, captions tell which is which."""
    prompts = [
        CaptionPrompt("000001", "one"),
        CaptionPrompt("000002", "two words"),
        CaptionPrompt("000003", "three"),
        CaptionPrompt("x", "three"),
    ]
    shuffled = ["three", "one", "three", "two  words"]
    (tmp_path / "images").mkdir()
    rows = []
    for index, caption in enumerate(shuffled):
        rows.append({"index": index, "filename": f"images/{index:04d}.jpg", "caption": caption})
        (tmp_path / rows[-1]["filename"]).write_bytes(b"")
    write_jsonl(tmp_path / "metadata.jsonl", rows)
    assert [entry.prompt.data_id for entry in list_images(tmp_path)] == ["0", "1", "2", "3"]
    found = list_images(tmp_path, prompts)
    assert [entry.prompt for entry in found] == prompts
    assert [entry.path.name for entry in found] == ["0001.jpg", "0003.jpg", "0000.jpg", "0002.jpg"]
    with pytest.raises(DataError, match=r"image 1 .index 0.: no prompt of the prompt set has its caption .'three'"):
        list_images(tmp_path, prompts[:2])
    with pytest.raises(DataError, match=r"no image of 1 of the 5 prompts of the prompt set, e.g. 'y'"):
        list_images(tmp_path, [*prompts, CaptionPrompt("y", "four")])
    rows[1]["index"] = None
    write_jsonl(tmp_path / "metadata.jsonl", rows)
    with pytest.raises(DataError, match="image 2: index None is no id"):
        list_images(tmp_path)
