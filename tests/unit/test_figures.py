"""Figures: the plotted numbers are those of the files, and the files are equal byte for byte."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tables_world
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PolyCollection
from matplotlib.text import Text
from permissions import obey_permissions, writable
from PIL import Image
from typer.testing import CliRunner

from promptecho.benchmarks.packing import pack
from promptecho.cli import app
from promptecho.errors import DataError
from promptecho.figures.curves import curve_data, groups_of
from promptecho.figures.draw_curves import draw as draw_curves
from promptecho.figures.draw_samples import draw as draw_samples
from promptecho.figures.draw_training import draw as draw_training
from promptecho.figures.samples import CheckpointImages, Listed, choose, read_column, shares, thin, verdicts_of
from promptecho.figures.sources import read_curve_sources, read_training_sources
from promptecho.figures.style import DOUBLE, PAGE, SINGLE, SMALLEST, style
from promptecho.figures.training import smoothed, training_data
from promptecho.files import sha256_file, write_jsonl
from promptecho.provenance import Provenance
from promptecho.scores import ScoreItem, Scores, read_scores, write_scores
from promptecho.statistics import mean_of_group_means

TAGS = ("colors", "counting")
PROMPTS, IMAGES = 6, 2


def score(folder, run, step, chance, *, benchmark="geneval", by_group=True, **changed):
    rng = np.random.default_rng([step, len(run), *run.encode()])
    items = [
        ScoreItem(
            prompt_id=f"{p:05}",
            image_index=i,
            group=TAGS[p % 3 == 0],
            outcome=float(rng.random() < chance),
            failed=False,
        )
        for p in range(PROMPTS)
        for i in range(IMAGES)
    ]
    groups = [np.mean([item.outcome for item in items if item.group == tag]) for tag in TAGS]
    overall = float(np.mean(groups)) if by_group else float(np.mean([item.outcome for item in items]))
    provenance = {
        "experiment": "tiny", "run": run, "step": step, "benchmark": benchmark, "scorer": "geneval", "mode": "official",
        "backend": "oracle", "judge_model": "oracle", "prompts_digest": "p1", "n": len(items), "failures": 0,
    }  # fmt: skip
    path = folder / f"scores/{benchmark}/{run}/{step}.json"
    write_scores(
        path, Scores(provenance=Provenance(**(provenance | changed)), summary={"overall": overall}, items=items)
    )
    return path


def rows(first, last, shift=0.0):
    return [
        {"iteration": i, "reward_mean": shift + 0.1 * i, "kl_ema": 0.001 * i, "diversity": 1.0 - 0.01 * i,
         **({"heldout_reward": shift + 0.05 * i} if i % 2 == 0 else {})}
        for i in range(first, last + 1)
    ]  # fmt: skip


def draw_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def images(folder, run, step, prompts=PROMPTS):
    """An image folder as two shards list it; ids and names as a layout other than GenEval's may choose them."""
    root = folder / f"images/{run}/{step}/set"
    listing = [
        {
            "prompt_id": f"{p:05}",
            "image_index": i,
            "prompt": f"prompt {p}: 5$ of text",
            "filename": f"{p:05}_{i:05}.png",
        }
        for p in range(prompts)
        for i in range(IMAGES)
    ]
    for number, row in enumerate(listing):
        draw_image(root / row["filename"], step + number)
        row["sha256"] = sha256_file(root / row["filename"])
    for k in range(2):
        write_jsonl(root / f"shards/{k}.jsonl", listing[k::2])
    return root


@pytest.fixture
def experiment(tmp_path):
    """Two seeds of `echo` and one run `control`, scored at 2 and 4."""
    folder = tmp_path / "tiny"
    score(folder, "base", 0, 0.4)
    for run, shift in (("echo-s1", 0.0), ("echo-s2", 0.5), ("control", -0.5)):
        for step in (2, 4):
            score(folder, run, step, 0.4 + 0.1 * step)
            write_jsonl(folder / f"runs/{run}/{step}/metrics.jsonl", rows(step - 1, step, shift))
    return folder


def run(*arguments):
    result = CliRunner().invoke(app, ["figures", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_plotted_scores_are_those_of_the_score_files(experiment, tmp_path):
    run("curves", experiment, "--benchmark", "geneval", "--out", tmp_path / "out")
    data = json.loads((tmp_path / "out/curves_geneval.json").read_text())
    for name in ("echo-s1", "echo-s2", "control"):
        points = data["score"]["runs"][name]
        assert [point["iteration"] for point in points] == [2, 4]
        for point in points:
            found = read_scores(experiment / f"scores/geneval/{name}/{point['iteration']}.json")
            estimate, _ = mean_of_group_means(found.items)
            assert point["value"] == found.summary["overall"] == estimate.value
            assert (point["low"], point["high"]) == (estimate.low, estimate.high)
    assert data["score"]["base"]["iteration"] == 0
    assert data["groups"] == {"control": ["control"], "echo": ["echo-s1", "echo-s2"]}
    for at, mean in enumerate(data["score"]["means"]["echo"]):
        seeds = [data["score"]["runs"][name][at]["value"] for name in ("echo-s1", "echo-s2")]
        assert mean["value"] == pytest.approx(np.mean(seeds))
        assert mean["low"] <= mean["value"] <= mean["high"]


def test_plotted_metrics_are_those_of_the_rows(experiment):
    panels = {panel["key"]: panel for panel in training_data(*read_training_sources([experiment]))["panels"]}
    assert list(panels) == ["reward_mean", "kl_ema", "diversity"]  # what nobody has recorded has no panel
    assert panels["reward_mean"]["runs"]["echo-s2"] == [[i, 0.5 + 0.1 * i] for i in range(1, 5)]
    assert panels["reward_mean"]["heldout"]["control"] == [[2, -0.4], [4, -0.3]]
    assert panels["diversity"]["means"]["echo"] == [[i, pytest.approx(1.0 - 0.01 * i)] for i in range(1, 5)]


def test_rewards_of_different_units_have_panels_of_their_own():
    """A unit is told only where the drawn reward is that of one model with weight 1."""
    rows = {
        "echo": [{"iteration": 1, "reward_mean": -1.0, "reward_0_echo": -1.0}],
        "score": [{"iteration": 1, "reward_mean": 0.5, "reward_0_inferscore": 0.5}],
        "half": [{"iteration": 1, "reward_mean": -0.5, "reward_0_echo": -1.0}],
        "both": [{"iteration": 1, "reward_mean": -0.5, "reward_0_echo": -1.0, "reward_1_inferscore": 0.5}],
    }
    panels = [panel for panel in training_data("tiny", rows)["panels"] if panel["key"] == "reward_mean"]
    assert [(panel["label"], sorted(panel["runs"])) for panel in panels] == [
        ("reward (nats per token)", ["echo"]),
        ("reward (score from 0 to 1)", ["score"]),
        ("reward (weighted sum)", ["both", "half"]),
    ]


FILES = ("{}.png", "{}.pdf", "{}.json", "{}.html", "single_column/{}.pdf")


def test_files_one_by_one_give_the_same_bytes_as_the_folder(experiment, tmp_path):
    """Also in another order: this is how the workflow calls it, twice."""
    run("curves", experiment, "--benchmark", "geneval", "--out", tmp_path / "a")
    run("training", experiment, "--out", tmp_path / "a")
    files = [*experiment.glob("scores/geneval/*/*.json")]
    run("curves", *reversed(files), "--benchmark", "geneval", "--out", tmp_path / "b")
    run("training", *reversed([*experiment.glob("runs/*/*/metrics.jsonl")]), "--out", tmp_path / "b")
    for name in (kind.format(figure) for figure in ("curves_geneval", "training") for kind in FILES):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_overall_over_images_is_drawn_as_the_file_tells_it(tmp_path):
    path = score(tmp_path / "tiny", "base", 0, 0.5, benchmark="captions", by_group=False)
    files = read_curve_sources([path], "captions")
    assert curve_data(files)["score"]["base"]["value"] == read_scores(path).summary["overall"]


def test_overall_that_no_mean_of_the_items_gives(tmp_path):
    path = score(tmp_path / "tiny", "base", 0, 0.5)
    path.write_text(path.read_text().replace('"overall": ', '"overall": 0.123, "was": '))
    files = read_curve_sources([path], "geneval")
    with pytest.raises(DataError, match=r"0\.json: summary\.overall 0\.123 is neither"):
        curve_data(files)


def test_scores_that_do_not_belong_together(experiment):
    score(experiment, "control", 4, 0.5, backend="mask2former")
    files = read_curve_sources([experiment], "geneval")
    with pytest.raises(DataError, match="differ in backend"):
        curve_data(files)


def test_base_alone_is_drawn_and_nothing_recorded_is_told(tmp_path):
    folder = tmp_path / "tiny"
    path = score(folder, "base", 0, 0.4)
    run("curves", path, "--benchmark", "geneval", "--out", tmp_path / "out")
    assert (tmp_path / "out/curves_geneval.png").is_file()
    write_jsonl(folder / "runs/new/2/metrics.jsonl", [{"iteration": 1}])
    with pytest.raises(DataError, match="tiny: no run has recorded reward, KL or diversity yet"):
        training_data(*read_training_sources([folder]))


def test_metrics_that_do_not_say_whose_they_are(experiment, tmp_path):
    write_jsonl(tmp_path / "metrics.jsonl", rows(1, 2))
    with pytest.raises(DataError, match=r"expected \.\.\./runs/RUN/STEP/metrics\.jsonl"):
        read_training_sources([experiment, tmp_path / "metrics.jsonl"])


def test_rows_of_two_experiments_are_not_one_figure(experiment, tmp_path):
    write_jsonl(tmp_path / "other/runs/x/2/metrics.jsonl", rows(1, 2))
    with pytest.raises(DataError, match="rows of several experiments: tiny .*, other"):
        read_training_sources([experiment, tmp_path / "other/runs/x/2/metrics.jsonl"])


def test_seeds_are_grouped_by_name():
    assert groups_of(["c", "a-s2", "a-s1", "b-s1"]) == {"a": ["a-s1", "a-s2"], "b-s1": ["b-s1"], "c": ["c"]}


def test_smoothing_leaves_short_curves_alone():
    short = [[i, float(i % 2)] for i in range(1, 20)]
    assert smoothed(short) == short
    long = [[i, float(i % 2)] for i in range(60)]
    assert smoothed(long)[-1] == [59, 0.5]


def test_samples_figure(experiment, tmp_path):
    folders = [images(experiment, "base", 0), *(images(experiment, "echo-s1", step) for step in (2, 4))]
    call = ["samples", *folders, "--scores", experiment / "scores/geneval", "--prompts", 3]
    run(*call, "--out", tmp_path / "a.png")
    run(*call, "--out", tmp_path / "b.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    page = (tmp_path / "a.html").read_text()
    assert base64.b64encode((tmp_path / "a.png").read_bytes()).decode() in page and "a.png" not in page
    run("samples", *folders, "--prompts", 3, "--out", tmp_path / "plain.png")
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "a.png").read_bytes()  # without verdicts
    column = read_column(folders[1], experiment / "scores/geneval/echo-s1/2.json")
    assert column.label == "echo-s1 @ 2" and len(column.images) == PROMPTS * IMAGES
    assert column.verdicts[("00003", 1)] in (0.0, 1.0)
    told = json.loads((tmp_path / "a.json").read_text())
    assert sum(told["counts"].values()) == PROMPTS and len(told["shown"]) == 3
    assert told["title"] in page and all(one["prompt"] in page for one in told["shown"])


def test_prompts_without_verdicts_are_spread_evenly(experiment):
    column = read_column(images(experiment, "base", 0))
    assert [key for key, _ in choose([column], 3).keys] == ["00001", "00003", "00005"]
    assert len(choose([column], 100).keys) == PROMPTS
    assert choose([column], 2, image_index=1).keys == [("00001", 1), ("00004", 1)]
    with pytest.raises(DataError, match="no images with index 2"):
        choose([column], 2, image_index=2)


def judged(label, outcomes, text="prompt", **more):
    """A column of one image per prompt that has these verdicts."""
    listed = {(f"{p:03}", 0): Listed(f"{text} {p}", PIXEL) for p in range(len(outcomes))}
    return CheckpointImages(label, listed, dict(zip(listed, outcomes, strict=True)), **more)


PIXEL = Path(__file__).parent / "pixel.png"  # never opened by choose


def test_wins_losses_and_ties_have_their_true_shares():
    first = [0.0] * 50 + [1.0] * 50
    last = [1.0] * 30 + [0.0] * 20 + [0.0] * 10 + [1.0] * 38 + [None] * 2
    chosen = choose([judged("base", first), judged("middle", [0.0] * 100), judged("run @ 4", last)], 24)
    assert chosen.counts == {"win": 30, "loss": 10, "tie": 58} and chosen.failed == 2
    sides = [chosen.sides[key] for key in chosen.keys]
    assert sides == ["win"] * 7 + ["loss"] * 3 + ["tie"] * 14  # 24 * 30 / 98 = 7.3, 2.4 and 14.2
    ties = [key for key, side in chosen.sides.items() if side == "tie"]
    assert sum(last[int(key[0])] for key in ties) == 9  # 38 of 58 are right both times: 14 * 38 / 58 = 9.2
    assert chosen.title == (
        "run @ 4 against base on 98 prompts: 30 wins (30.6%), 10 losses (10.2%), 58 ties (59.2%), 2 more without a "
        "verdict. Shown in proportion: 7 wins, 3 losses, 14 ties."
    )


def test_pairs_are_wins_and_losses_already():
    columns = [judged("base", [None] * 4), judged("run @ 4", [1.0, -1.0, 0.0, 1.0], difference=True)]
    columns[0].verdicts.clear()
    chosen = choose(columns, 4)
    assert chosen.counts == {"win": 2, "loss": 1, "tie": 1} and "against the baseline" in chosen.title


@pytest.mark.parametrize("counts", [(88, 22, 290), (0, 0, 5), (1, 1, 1), (3, 0, 1000)])
def test_shares_add_up(counts):
    dealt = shares(dict(zip("abc", counts, strict=True)), 5)
    assert sum(dealt.values()) == 5
    assert all(abs(dealt[name] - 5 * count / sum(counts)) < 1 for name, count in zip("abc", counts, strict=True))


def test_an_image_of_tiif_has_the_share_of_its_questions(tmp_path):
    scores = read_scores(tables_world.tiif(tmp_path, "base", 0, 0.5))
    verdicts = verdicts_of(scores)
    some = scores.items[0]
    attribute, _, number = some.prompt_id.rpartition("/")
    for length in ("short", "long"):
        about = [i.outcome for i in scores.items if i.prompt_id == some.prompt_id and i.group.startswith(f"{length}:")]
        assert verdicts[(f"{attribute}/{length}/{number}", 0)] == pytest.approx(np.mean(about))


# --- what a paper asks for: widths, sizes of letters, nothing cut off


def overrun(figure):
    """How far anything reaches beyond the figure's edges, in inches."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    box, (width, height) = figure.get_tightbbox(renderer), figure.get_size_inches()
    return max(-box.x0, -box.y0, box.x1 - width, box.y1 - height)


@pytest.mark.parametrize("width", [SINGLE, DOUBLE])
def test_figures_have_the_width_of_a_column_and_nothing_overruns(tmp_path, width):
    runs = ("a-s1", "a-s2", "a-run-whose-name-is-as-long-as-those-of-studies-become-with-time", "inferscore")
    tables_world.tiif(tmp_path, "base", 0, 0.5)
    metrics = {}
    for name in runs:
        for step in (2, 4):
            tables_world.tiif(tmp_path, name, step, 0.6)
            tables_world.densealign(tmp_path, name, step, 0.5, 0.2)
        reward = "inferscore" if name == "inferscore" else "echo"
        metrics[name] = [row | {f"reward_0_{reward}": row["reward_mean"]} for row in rows(1, 4)]
    source = png(tmp_path / "pixel.png")
    long = "A prompt of many words that costs $5 and has an unabridgeablylongwordinit, " * 20
    columns = [
        CheckpointImages(label, {key: Listed(long, source) for key in one.images}, one.verdicts)
        for label in ("base", *(f"{runs[2]} @ {step}" for step in range(10, 60, 10)))
        for one in [judged(label, [float(len(label) % 2)] * 30)]
    ]
    with style():
        figures = {name: draw_curves(curve_data(read_curve_sources([tmp_path / "zimage"], name)), width)
                   for name in ("tiif", "densealign")}  # fmt: skip
        figures["training"] = draw_training(training_data("tiny", metrics), width)
        figures["samples"] = draw_samples(columns, choose(columns, 24), width)
        for name, figure in figures.items():
            assert figure.get_figwidth() == width and figure.get_figheight() <= PAGE, name
            assert all(axes.has_data() for axes in figure.axes), name  # no empty panel
            assert overrun(figure) < 0.02, name
            assert min(text.get_fontsize() for text in figure.findobj(Text)) >= SMALLEST, name
            assert not [one for axes in figure.axes for one in axes.collections if isinstance(one, PolyCollection)]
    for name in ("tiif", "densealign"):
        assert all(axes.get_ylabel().replace("\n", " ").endswith(("(%)", "(points)")) for axes in figures[name].axes)
    assert "reward (nats per token)" in [axes.get_ylabel() for axes in figures["training"].axes]


def png(path):
    Image.new("RGB", (8, 8), "white").save(path)
    return path


def test_columns_of_other_prompts_or_scores_are_refused(experiment):
    base, trained = images(experiment, "base", 0), images(experiment, "echo-s1", 2)
    (trained / "shards/0.jsonl").write_text(
        (trained / "shards/0.jsonl").read_text().replace("prompt 2:", "prompt two:")
    )
    with pytest.raises(DataError, match="prompt 00002 is 'prompt two"):
        choose([read_column(base), read_column(trained)], PROMPTS)
    (trained / "shards/0.jsonl").unlink()
    with pytest.raises(DataError, match="echo-s1 @ 2: prompt 00000, image 0 is missing"):
        choose([read_column(base), read_column(trained)], PROMPTS)
    with pytest.raises(DataError, match="scores of echo-s1 at 4, the images are of echo-s1 at 2"):
        read_column(trained, experiment / "scores/geneval/echo-s1/4.json")


def test_first_and_last_checkpoint_stay():
    assert thin(list(range(10)), 4) == [0, 3, 6, 9]
    assert thin(list(range(3)), 8) == [0, 1, 2]


# --- the other benchmarks' scores


@pytest.mark.parametrize("scorer", ["dpg", "densealign", "textocr", "tiif"])
def test_curves_of_every_benchmark(tmp_path, scorer):
    """Points are the score files' own overall, with intervals; pairs start from the baseline, which is 0."""
    write = getattr(tables_world, scorer)
    for name, shift in (("echo-s1", 0.03), ("echo-s2", 0.06), ("other", 0.0)):
        for step in (2, 4):
            write(tmp_path, name, step, 0.5 + shift * step, *((0.2,) if scorer == "densealign" else ()))
    if scorer != "densealign":
        write(tmp_path, "base", 0, 0.5)
    run("curves", tmp_path / "zimage", "--benchmark", scorer, "--out", tmp_path / "a")
    run("curves", *tmp_path.glob("zimage/scores/*/*/*.json"), "--benchmark", scorer, "--out", tmp_path / "b")
    for kind in ("png", "pdf", "json"):
        name = f"curves_{scorer}.{kind}"
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), kind
    data = json.loads((tmp_path / f"a/curves_{scorer}.json").read_text())
    series = [data["score"], *data["further_scores"]]
    assert [one["name"] for one in series] == (["short.overall", "long.overall"] if scorer == "tiif" else ["overall"])
    for one in series:
        assert (one["base"] is None) == (scorer == "densealign")
        for name, points in one["runs"].items():
            for point in points:
                told = read_scores(tmp_path / f"zimage/scores/{scorer}/{name}/{point['iteration']}.json").summary
                assert point["value"] == pytest.approx(told[one["name"]], abs=1e-4)
                assert point["low"] < point["value"] < point["high"]
        seeds = [[point["value"] for point in one["runs"][name]] for name in ("echo-s1", "echo-s2")]
        means = one["means"]["echo"]
        assert [point["value"] for point in means] == pytest.approx(np.mean(seeds, axis=0), abs=1e-3)
        assert all(point["low"] < point["value"] < point["high"] for point in means)


def test_curves_of_dpg_count_prompts_alike_where_images_failed(tmp_path):
    path = tables_world.dpg(tmp_path, "base", 0, 0.8, failed=3)
    files = read_curve_sources([path], "dpg")
    assert curve_data(files)["score"]["base"]["value"] == pytest.approx(read_scores(path).summary["overall"])


def test_pairs_against_different_baselines_are_not_one_curve(tmp_path):
    tables_world.densealign(tmp_path, "echo", 2, 0.5, 0.2)
    tables_world.densealign(tmp_path, "echo", 4, 0.5, 0.2, baseline="other @ 9")
    files = read_curve_sources([tmp_path / "zimage"], "densealign")
    with pytest.raises(DataError, match="differ in baseline"):
        curve_data(files)


COMMANDS = """\
import sys, os
from typer.testing import CliRunner
from promptecho.benchmarks.packing import pack
from promptecho.cli import app
folder, out = sys.argv[1:]
assert not os.access(folder, os.W_OK)
tables = ["tables", folder, "--table", "geneval"]
for words in (
    [*tables, "--out", f"{out}/tables"],
    [*tables, "--print"],
    [*tables, "--json"],
    ["figures", "curves", folder, "--benchmark", "geneval", "--out", f"{out}/figures"],
    ["figures", "training", folder, "--out", f"{out}/figures"],
    ["figures", "samples", f"{folder}/images/base/0/set", f"{folder}/images/echo-s1/2/set", "--out", f"{out}/a.png"],
    ["train", "--watch", folder, "--once"],
    ["train", "--watch", folder, "--json"],
    ["tables", folder, "--out", folder],
):
    result = CliRunner().invoke(app, words)
    print(words[0], "" if result.exit_code == 0 else result.exception)
"""


def test_results_that_may_only_be_read_are_shown_all_the_same(experiment, tmp_path):
    """Tables and figures in another folder, and the live view; images may be packed."""
    pack(images(experiment, "base", 0))
    images(experiment, "echo-s1", 2)
    writable(experiment, False)
    command = [sys.executable, "-c", COMMANDS, str(experiment), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=obey_permissions, cwd=tmp_path)
    writable(experiment, True)
    *good, bad = done.stdout.splitlines()
    assert [line.strip() for line in good] == ["tables"] * 3 + ["figures"] * 3 + ["train"] * 2, done
    assert "cannot write (Permission denied)" in bad
    assert {"geneval.md", "curves_geneval.png", "a.png"} <= {path.name for path in (tmp_path / "out").rglob("*")}
