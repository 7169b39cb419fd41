"""Source images as files: names that lead elsewhere, files without end, and copies that do not stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from promptecho.captions.merge import MergeSpec, import_prompts
from promptecho.captions.sources import keep, kept_sources, read_sources
from promptecho.config.families import family_named
from promptecho.errors import DataError
from promptecho.files import sha256_file, write_jsonl
from promptecho.source_images import SourceImage

EDIT, TEXT = "qwenimage_edit", "zimage"


def prompts(folder: Path, *images) -> Path:
    """edits.jsonl with a row for each value of `image`; pictures/a.png is there."""
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30), "red").save(folder / "pictures/a.png")
    rows = [{"data_id": f"e{k}", "caption": "make it blue", "image": image} for k, image in enumerate(images)]
    write_jsonl(folder / "edits.jsonl", rows)
    return folder / "edits.jsonl"


def spec_of(folder: Path, family: str) -> MergeSpec:
    out = {"out": folder / "captions.h5", "heldout_out": folder / "heldout.jsonl", "heldout": 1}
    return MergeSpec(**out, max_rejected_share=0.0, family=family_named(family))


def refused(path: Path, family: str = EDIT) -> str:
    with pytest.raises(DataError) as caught:
        import_prompts(path, spec_of(path.parent / "out", family))
    assert not (path.parent / "out").exists()
    return str(caught.value).replace(str(path.parent), "")


def test_a_family_of_text_is_told_of_the_column_whatever_is_in_it(tmp_path):
    """Data sets have columns of this name that were let be before."""
    values = ["/data/1.jpg", {"path": "1.jpg", "bytes": "iVBO"}, "https://example.org/1.jpg", 7, "", None]
    told = refused(prompts(tmp_path, *values), TEXT)
    first = "/edits.jsonl: 4 of 6 prompts have a source image, which Z-Image does not take; remove `image`:"
    assert told.splitlines() == [first, "  e0", "  e1", "  e2", "  e3"]
    with pytest.raises(DataError, match="4 of 6 prompts have a source image, which Z-Image does not take"):
        read_sources(tmp_path / "edits.jsonl", family_named(TEXT))


def test_links_stay_in_the_folder(tmp_path):
    """What they lead to is copied to the results; nobody has meant files from elsewhere."""
    data, other = tmp_path / "data", tmp_path / "other"
    path = prompts(data, "pictures/a.png", "pictures/b.png", "linked/c.png", "pictures/near.png")
    other.mkdir()
    for name in ("b.png", "c.png"):
        Image.new("RGB", (40, 30), "blue").save(other / name)
    (data / "pictures/b.png").symlink_to(other / "b.png")
    (data / "linked").symlink_to(other)
    (data / "pictures/near.png").symlink_to("a.png")
    told = refused(path).splitlines()
    assert [line.split(":")[1] for line in told] == ["2", "3"]
    leads = f"a link that leads out of the folder of edits.jsonl, to {other / 'b.png'}; put a copy there (cp -L)"
    assert told[0].endswith(f"image 'pictures/b.png': {leads}")
    path = prompts(data, "pictures/a.png", "pictures/near.png")
    (tmp_path / "whole").symlink_to(data)  # the whole folder may be one
    assert {one.sha256 for one in read_sources(tmp_path / "whole/edits.jsonl").values()} == {
        sha256_file(data / "pictures/a.png")
    }


def test_what_has_no_end_is_not_waited_for(tmp_path):
    path = prompts(tmp_path, "pictures/pipe.png", "pictures")
    os.mkfifo(tmp_path / "pictures/pipe.png")
    told = refused(path)
    assert "e0: /pictures/pipe.png: a pipe or device, not a plain file; save what comes from it as a file" in told
    assert "e1: /pictures: cannot read (Is a directory)" in told
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"zero.png: a pipe or device"):
        SourceImage(tmp_path / "zero.png", "0" * 64).load()


def test_names_that_cannot_be_written_are_named(tmp_path):
    path = prompts(tmp_path, "pictures/a.png", "pictures/a\0.png")
    content = path.read_text().replace("a\\u0000", "\\ud800")
    path.write_text(content)
    told = refused(path)
    assert told == "/edits.jsonl:2: image 'pictures/\\ud800.png': holds a NUL or half a character; rename the file"


def test_a_long_suffix_is_no_part_of_a_copy_s_name(tmp_path):
    long = f"pictures/a.{'x' * 200}"
    path = prompts(tmp_path, long)
    os.replace(tmp_path / "pictures/a.png", tmp_path / long)
    (source,) = read_sources(path).values()
    assert keep(source, tmp_path / "kept") == f"sources/{source.sha256}"
    assert SourceImage(tmp_path / "kept" / f"sources/{source.sha256}", source.sha256).load().size == (40, 30)


def test_a_damaged_copy_is_named_and_made_again(tmp_path):
    path, out = prompts(tmp_path, "pictures/a.png"), tmp_path / "out"
    spec = MergeSpec(out / "captions.h5", out / "heldout.jsonl", 0, max_rejected_share=0.0, family=family_named(EDIT))
    import_prompts(path, spec)
    (copy,) = kept_sources(spec.out).values()
    sound = copy.path.read_bytes()
    copy.path.write_bytes(sound[:-20])
    fix = "its content is not what its name says; put the right file there, or, if it is a copy in results/, delete it"
    with pytest.raises(DataError, match=f"{copy.sha256}.png: {fix}"):
        copy.load()
    write_jsonl(spec.heldout_out, [{"data_id": "e0", "caption": "x", "image": f"sources/{copy.path.name}"}])
    with pytest.raises(DataError, match=f"e0: .*{copy.sha256}.png: {fix}"):  # never taken for another image
        read_sources(spec.heldout_out)
    import_prompts(path, spec)
    assert copy.path.read_bytes() == sound and copy.load().size == (40, 30)


def test_a_file_of_ones_own_may_be_named_by_any_hash(tmp_path):
    (tmp_path / "sources").mkdir()
    Image.new("RGB", (40, 30)).save(tmp_path / f"sources/{'0' * 64}.png")
    write_jsonl(tmp_path / "mine.jsonl", [{"id": "a", "prompt": "x", "image": f"sources/{'0' * 64}.png"}])
    assert list(read_sources(tmp_path / "mine.jsonl")) == ["a"]


def test_a_source_that_changes_meanwhile_leaves_no_copy(tmp_path):
    (source,) = read_sources(prompts(tmp_path, "pictures/a.png")).values()
    Image.new("RGB", (40, 30), "green").save(source.path)
    with pytest.raises(DataError, match=r"a.png: is another file than when this began; start again"):
        keep(source, tmp_path / "kept")
    assert list((tmp_path / "kept/sources").iterdir()) == []
