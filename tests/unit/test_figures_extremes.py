"""Figures of one checkpoint, of a dozen runs with long names, and of one row."""

from __future__ import annotations

import pytest
import tables_world
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from promptecho.figures.curves import curve_data
from promptecho.figures.draw_curves import draw as draw_curves
from promptecho.figures.draw_training import draw as draw_training
from promptecho.figures.samples import CheckpointImages, Listed, choose
from promptecho.figures.sources import read_curve_sources
from promptecho.figures.style import DOUBLE, MARKERS, SINGLE, point_style, style
from promptecho.figures.training import training_data

LONG = "zimage-turbo-promptecho-qwen3vl-32b-reward-lora-r64-lr3e-4-kl0.002-prompts-v2-filtered"


@pytest.fixture(scope="module")
def dozen(tmp_path_factory):
    root = tmp_path_factory.mktemp("dozen")
    for k in range(1, 13):
        for step in (10, 12, 30) if k == 1 else (30,):
            tables_world.densealign(root, f"{LONG}-v{k}", step, 0.5, 0.2)
    return curve_data(read_curve_sources([root / "zimage"], "densealign"))


@pytest.mark.parametrize("width", [SINGLE, DOUBLE])
def test_every_point_of_a_dozen_runs_is_inside_the_axes_and_the_legend_inside_the_figure(dozen, width):
    with style():
        figure = draw_curves(dozen, width)
        figure.draw(renderer := FigureCanvasAgg(figure).get_renderer())
        (axes,) = figure.axes
        low, high = axes.get_xlim()
        points = [line for line in axes.lines if line.get_marker() in MARKERS]
        assert sum(len(line.get_xdata()) for line in points) == 14
        assert all(low < x < high for line in points for x in line.get_xdata())
        (first,) = [line for line in points if len(line.get_xdata()) == 3]
        assert all(abs(x - step) < 1 for x, step in zip(first.get_xdata(), (10, 12, 30), strict=True))  # 12 is not 10
        (legend,) = figure.legends
        assert legend.get_window_extent(renderer).x1 <= figure.bbox.x1 + 1
        names = [text.get_text().rpartition("-")[2] for text in legend.get_texts()]
        assert names[:12] == [f"v{k}" for k in range(1, 13)]


def test_dozens_of_runs_have_different_marks():
    assert len({tuple(sorted(point_style(index).items())) for index in range(36)}) == 36


def test_one_row_is_a_point_and_no_empty_panel():
    with style():
        figure = draw_training(training_data("tiny", {"echo": [{"iteration": 1, "reward_mean": 0.5}]}), DOUBLE)
    assert any(line.get_marker() == "o" and list(line.get_ydata()) == [0.5] for line in figure.axes[0].lines)


def test_the_legend_says_what_bold_is():
    def labels(n):
        rows = [{"iteration": i, "reward_mean": 0.1 * (i % 3)} for i in range(n)]
        with style():
            figure = draw_training(training_data("tiny", {"echo": rows}), DOUBLE)
        return [text.get_text() for text in figure.legends[0].findobj(Text)]

    assert "running mean, last 1/15 of a run" in labels(40)
    assert "each iteration" in labels(40)
    assert not {"running mean, last 1/15 of a run", "each iteration"} & set(labels(10))  # one curve alone is seen


def test_a_grid_of_one_image_of_several_says_which(tmp_path):
    def judged(label, outcome, images):
        keys = [(f"p{p}", i) for p in range(8) for i in range(images)]
        return CheckpointImages(label, {key: Listed("prompt", tmp_path) for key in keys}, dict.fromkeys(keys, outcome))

    several = choose([judged("base", 0.0, 4), judged("echo @ 4", 1.0, 4)], 4, image_index=2)
    assert "on 8 prompts (image 2 of each): 8 wins (100.0%)" in several.title
    assert "on 8 prompts: 8 wins" in choose([judged("base", 0.0, 1), judged("echo @ 4", 1.0, 1)], 4).title
