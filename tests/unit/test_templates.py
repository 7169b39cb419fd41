"""Texts for judges: placeholders, digests, and the user's own files in place of the project's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptecho.benchmarks.templates import PACKAGE, load_template
from promptecho.errors import DataError
from promptecho.files import digest
from promptecho.templates import Template

SHIPPED = sorted(PACKAGE.glob("*/templates/*.txt"))


def own(folder: Path, text: str, name: str = "densealign/pairwise.txt") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.parent.name}/{path.stem}")
def test_every_shipped_text_loads(path):
    template = load_template(path.parent.parent.name, path.stem)
    assert template.text and template.text == template.text.strip() and template.digest == digest(template.text)


@given(st.text(), st.text())
def test_values_are_put_in_as_they_are(first, second):
    template = Template("t.txt", '{a}-{b}-{a} {"a": {}}', "")
    assert template.fill(a=first, b=second) == f'{first}-{second}-{first} {{"a": {{}}}}'


def test_a_value_is_no_template():
    assert Template("t.txt", "{a} {b}", "").fill(a="{b} {c} \\1", b="{a}") == "{b} {c} \\1 {a}"


def test_placeholders_without_value_and_values_without_placeholder_are_errors():
    template = Template("t.txt", "{prompt} {promt}", "")
    with pytest.raises(DataError, match=r"t\.txt: \{promt\} is unknown; placeholders here: \{prompt\}"):
        template.fill(prompt="x")
    with pytest.raises(DataError, match=r"t\.txt: lacks \{questions\}"):
        template.fill(prompt="x", promt="y", questions="z")
    with pytest.raises(DataError, match="placeholders here: none"):
        template.fill()


def test_the_users_text_replaces_the_shipped_one(tmp_path):
    shipped = load_template("densealign", "pairwise")
    folder = own(tmp_path, "\ufeffWhich one? {prompt}\r\n")
    mine = load_template("densealign", "pairwise", folder)
    assert (mine.text, mine.source) == ("Which one? {prompt}", str(folder / "densealign/pairwise.txt"))
    assert mine.digest != shipped.digest
    # the same text elsewhere is the same template
    assert load_template("densealign", "pairwise", own(tmp_path, shipped.text + "\n")).digest == shipped.digest
    (folder / "densealign/pairwise.txt").unlink()
    assert load_template("densealign", "pairwise", folder) == shipped


def test_folders_and_files_that_would_change_nothing_are_errors(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder of templates"):
        load_template("densealign", "pairwise", tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"densealign/pairwize\.txt: no template has this name; .*densealign/pairwise"):
        load_template("densealign", "pairwise", own(tmp_path / "a", "{prompt}", "densealign/pairwize.txt"))
    with pytest.raises(DataError, match=r"dense/pairwise\.txt: no template has this name"):
        load_template("densealign", "pairwise", own(tmp_path / "b", "{prompt}", "dense/pairwise.txt"))
    with pytest.raises(DataError, match=r"pairwise\.txt: the template is empty"):
        load_template("densealign", "pairwise", own(tmp_path / "c", " \n"))
    (own(tmp_path / "d", "x") / "densealign/pairwise.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=r"pairwise\.txt:1: not UTF-16-LE"):
        load_template("densealign", "pairwise", tmp_path / "d")
    with pytest.raises(DataError, match=r"nothing\.txt: no such file"):
        load_template("densealign", "nothing")
