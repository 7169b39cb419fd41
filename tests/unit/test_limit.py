"""`benchmarks.NAME.limit`: the first prompts of a set, by tag; images of others are neither needed nor lost."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import tables_world
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from promptecho.benchmarks import listing
from promptecho.benchmarks.dpg.shapes import write_dpg_questions
from promptecho.benchmarks.geneval.shapes import write_geneval_prompts
from promptecho.benchmarks.geneval2.shapes import write_geneval2_prompts
from promptecho.benchmarks.limit import first_places, first_prompts
from promptecho.benchmarks.registry import load_layout, load_scorer
from promptecho.benchmarks.scoring import ImageFolder, Scored, ScoringOptions
from promptecho.benchmarks.t2icompbench.shapes import write_compbench_prompts
from promptecho.benchmarks.textocr import prompts as textocr
from promptecho.benchmarks.textocr.layout import list_images, tag_of
from promptecho.benchmarks.textocr.shapes import write_textocr_prompts
from promptecho.benchmarks.tiif.shapes import write_tiif_prompts
from promptecho.benchmarks.unigenbench.shapes import write_shapes_prompts
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.files import write_jsonl
from promptecho.provenance import Limit
from promptecho.scores import read_scores
from promptecho.tables.collect import read_score_files
from promptecho.tables.kinds import make_table
from promptecho.tables.latex import to_latex
from promptecho.tables.table import to_markdown

CAPTIONS = ("A red circle.", "Three blue squares.", "A green ring above a black cross.", "A star and a yellow cross.")


def write_captions(count: int, seed: int, path: Path) -> None:
    rows = [{"data_id": f"c/{k}", "caption": caption} for k, caption in enumerate(CAPTIONS * count)]
    write_jsonl(path, rows)


# Benchmark -> writer of prompts, how many of a tag, images of each prompt, what counts as a prompt in ids.
SETS = {
    "geneval": (write_geneval_prompts, 3, 2),
    "dpg": (write_dpg_questions, 3, 4),
    "tiif": (write_tiif_prompts, 2, 1),
    "textocr": (write_textocr_prompts, 3, 2),
    "geneval2": (write_geneval2_prompts, 3, 2),
    "unigenbench": (write_shapes_prompts, 3, 2),
    "t2icompbench": (write_compbench_prompts, 3, 2),
    "captions": (write_captions, 3, 2),
}


def draw(name: str, prompts: Path, root: Path, limit: int | None) -> list[str]:
    """All images that a layout wants, each of one colour; returns the ids of their prompts."""
    layout = load_layout(name, prompts, root, SETS[name][2], limit)
    layout.remove_stale()
    for p in layout.chosen:
        for i in range(SETS[name][2]):
            path = layout.image_path(p, i)
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                Image.new("RGB", (64, 64), (p % 256, i, 9)).save(path)
    layout.describe(layout.chosen)
    return [layout.ids[p] for p in layout.chosen]


@given(st.lists(st.sampled_from("aaabbcde"), min_size=1, max_size=60), st.integers(1, 70), st.booleans())
def test_the_first_prompts_are_of_all_tags_in_order_and_more_include_fewer(tags, limit, lost):
    last = {0} if lost else set()
    chosen = first_places(tags, str, limit, last)
    assert chosen == sorted(set(chosen)) and len(chosen) == min(limit, len(tags))
    assert set(chosen) <= set(first_places(tags, str, limit + 1, last))
    assert not lost or 0 not in chosen or limit >= len(tags)
    sizes = Counter(tag for place, tag in enumerate(tags) if place not in last)
    counts = Counter(tags[place] for place in chosen if place not in last)
    for tag, size in sizes.items():
        places = [place for place, one in enumerate(tags) if one == tag and place not in last]
        assert [place for place in places if place in chosen] == places[: counts[tag]]
        if limit >= len(sizes):
            assert counts[tag] >= 1
            others = [other for other in sizes if counts[other] > 1]
            # Nobody has a place that was more due to another one.
            assert all((counts[tag] + 0.5) / size >= (counts[o] - 0.5) / sizes[o] or counts[tag] == size
                       for o in others)  # fmt: skip
    assert first_places(tags, str, None) == list(range(len(tags)))


def test_proportions():
    tags = ["a"] * 60 + ["b"] * 30 + ["c"] * 10
    assert Counter(tags[place] for place in first_places(tags, str, 10)) == {"a": 6, "b": 3, "c": 1}
    assert Counter(tags[place] for place in first_places(tags, str, 2)) == {"a": 1, "b": 1}


@pytest.mark.parametrize("name", list(SETS))
def test_a_limited_folder_a_whole_one_and_a_grown_one_score_alike(name, tmp_path):
    prompts = tmp_path / "prompts.jsonl"
    SETS[name][0](SETS[name][1], 1, prompts)
    every = draw(name, prompts, tmp_path / "whole", None)
    few = draw(name, prompts, tmp_path / "few", 5)
    assert 5 <= len(few) < len(every) and [one for one in every if one in few] == few

    def score(root: str, limit: int | None):
        folder = ImageFolder(tmp_path / root, prompts, SETS[name][2], limit=limit)
        if name == "textocr":  # its readers take seconds for an image
            read = textocr.read_prompts(prompts)
            only, told = first_prompts(read, tag_of, limit)
            entries = list_images(folder.root, read, folder.images_per_prompt, only)
            found = list(dict.fromkeys(entry.prompt for entry in entries))
            names = [(entry.prompt, entry.image_index) for entry in entries]
            return Scored(names, [], listing.prompts_digest(found), {}, limit=told)
        return load_scorer(name, ScoringOptions("oracle")).score(folder)

    scored = score("few", 5)
    total = len(every) // (2 if name == "tiif" else 1)
    assert scored.limit == Limit(prompts=5, of=total) and str(scored.limit) == f"first 5 of {total} prompts"
    assert score("whole", 5).items == scored.items, "images of others may be there"
    assert score("whole", 5).prompts_digest == scored.prompts_digest != score("whole", None).prompts_digest
    assert score("whole", total).limit is None, "all prompts are no limit"
    with pytest.raises(DataError, match="missing|are not the|no image"):
        score("few", None)

    # Raised, lowered and lifted: what was made stays, and each time the folder can be scored.
    made = {path: path.stat().st_mtime_ns for path in (tmp_path / "few").rglob("*.png") if "grids" not in str(path)}
    for limit in (7, None, 5):
        draw(name, prompts, tmp_path / "few", limit)
        assert score("few", limit).items == score("whole", limit).items
        assert all(path.stat().st_mtime_ns == then for path, then in made.items())


def test_dpg_takes_the_prompt_that_mode_official_loses_last(tmp_path):
    prompts = tmp_path / "questions.jsonl"
    write_dpg_questions(3, 1, prompts)
    lines = prompts.read_text().splitlines(keepends=True)
    first = lines[0].replace("single_0", "lost_0") if "single_0" in lines[0] else lines[0]
    prompts.write_text(first + "".join(lines))
    chosen = load_layout("dpg", prompts, tmp_path, 4, 6).chosen
    assert 0 not in chosen and len(chosen) == 6


def test_the_command_tells_the_limit_and_needs_the_prompts(tmp_path):
    prompts, config = tmp_path / "prompts.jsonl", tmp_path / "config.yaml"
    write_geneval_prompts(3, 1, prompts)
    draw("geneval", prompts, tmp_path / "images", 6)
    config.write_text(
        "models: {t2i: {path: shapes}, vlm: {path: shapes}}\ncaptions: {images: x}\n"
        "image_sets: {s: {benchmark: geneval, shapes: {per_tag: 3, seed: 1}, images_per_prompt: 2}}\n"
        "benchmarks: {geneval: {image_set: s, scorer: geneval, backend: oracle, limit: 6}}\n"
    )
    arguments = [
        "score", "--benchmark", "geneval", "--images", str(tmp_path / "images"), "--config", str(config), "--out",
        str(tmp_path / "0.json"), "--experiment", "e", "--run", "base", "--step", "0",
    ]  # fmt: skip
    refused = CliRunner().invoke(app, arguments)
    assert "benchmarks.geneval.limit is 6: the first of which prompts? Give --prompts" in str(refused.exception)
    done = CliRunner().invoke(app, [*arguments, "--prompts", str(prompts)])
    assert done.exit_code == 0, done.exception
    assert done.output.endswith("12 items, 0 failed; limit: first 6 of 18 prompts\n")
    assert read_scores(tmp_path / "0.json").provenance.limit == Limit(prompts=6, of=18)


def test_tables_tell_the_limit_and_mix_it_with_nothing(tmp_path):
    few = {"limit": Limit(prompts=12, of=553)}
    paths = [tables_world.geneval(tmp_path, "base", 0, 0.4, prompts=2, **few),
             tables_world.geneval(tmp_path, "r", 5, 0.6, prompts=2, **few)]  # fmt: skip
    table = make_table("geneval", read_score_files(paths, "geneval"), name="geneval")
    assert table.title.endswith("(%); limit: first 12 of 553 prompts")
    for text in (to_markdown(table), to_latex(table)):
        assert text.count("first 12 of 553 prompts") >= 2 and "as a smoke test" in text
    paths.append(tables_world.geneval(tmp_path, "r", 10, 0.6))
    with pytest.raises(DataError, match="differ in limit: 'all prompts' .*'first 12 of 553 prompts'.*one table for"):
        make_table("geneval", read_score_files(paths, "geneval"), name="geneval")
