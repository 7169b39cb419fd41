"""A run's rows and images in TensorBoard, Weights & Biases (offline) and trackio: the real packages, read back."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import tiny_t2i
import yaml
from PIL import Image
from tiny_experiment import PROMPTS, Experiment, metrics_without_times, same_bytes
from tracker_readers import need, tensorboard_events, tensorboard_scalars, trackio_rows, wandb_runs
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment, parse_experiment, run_training, slice_digest
from promptecho.config.slices import slice_value
from promptecho.config.tracker_kinds import TRACKERS
from promptecho.config.trackers import TrackerSection
from promptecho.doctor.preflight import preflight_of
from promptecho.doctor.trackers import tracker_troubles, trackers
from promptecho.errors import ConfigError
from promptecho.files import read_json, read_jsonl, write_json, write_jsonl
from promptecho.trackers import TrackedImage, TrackerKind, TrackerOptions, tag_of
from promptecho.trackers.feed import TrackerFeed, TrackerFeeds, sent_before
from promptecho.train.data import TrainingPrompt
from promptecho.train.log import begin_trackers
from promptecho.train.loop import train_segment
from promptecho.train.resend import chosen_tracker
from promptecho.train.tracked import sample_grid
from promptecho.train.watchdog import Position

SHOWN = 3


def row(iteration, reward):
    return {
        "iteration": iteration, "reward_mean": reward, "reward_0_echo": reward, "heldout_reward": reward - 1,
        "kl_ema": 0.25, "optimizer_steps": 4 * iteration, "seconds_update": 2.0, "seconds": 3.0, "images_per_s": 8.0,
        "memory_gb_sample": 1.5, "note": "text is not a scalar",
    }  # fmt: skip


def feed(tracker, folder, start=-1, *, training="digest", said=None, earlier=()):
    """What a segment that goes on from iteration `start` gives to one tracker."""
    return TrackerFeed(
        TrackerSection.model_validate(tracker), experiment="exp", run="r", folder=folder, training=training,
        start_iteration=start, config={"training": {"seed": 1}}, say=(said if said is not None else []).append,
        earlier=earlier,
    )  # fmt: skip


def write(tracker, folder, start, rows, **options):
    told: list[str] = []
    one = feed(tracker, folder, start, said=told, **options)
    for item in rows:
        one.log(item)
    one.close(120.0)
    assert told == []


def grid(colour):
    return [TrackedImage("p-1", "A <b>red</b> circle.", Image.new("RGB", (8, 6), colour))]


# TensorBoard


def test_rows_come_back_grouped(tmp_path):
    write("tensorboard", tmp_path, -1, [row(1, -0.5), row(2, -0.25)])
    found = tensorboard_scalars(tmp_path)
    assert found["reward/mean"] == [(1, -0.5), (2, -0.25)]
    assert found["reward/heldout"] == [(1, -1.5), (2, -1.25)]
    assert sorted(found) == [
        "memory/gb_sample", "policy/kl_ema", "policy/optimizer_steps", "reward/0_echo", "reward/heldout",
        "reward/mean", "speed/images_per_s", "speed/seconds", "speed/seconds_update",
    ]  # fmt: skip


def test_resumed_run_takes_back_the_rows_that_it_repeats(tmp_path):
    write("tensorboard", tmp_path, -1, [row(1, 0.5), row(2, 0.75), row(3, 9.0), row(4, 9.0)])
    write("tensorboard", tmp_path, 2, [row(3, 1.0)])
    assert tensorboard_scalars(tmp_path)["reward/mean"] == [(1, 0.5), (2, 0.75), (3, 1.0)]


def test_run_that_starts_over_leaves_nothing_double(tmp_path):
    for _ in range(2):
        rows = [{"iteration": 0, "heldout_reward": 0.5, "heldout_reward_0_echo": 0.5}, row(1, 0.25)]
        write("tensorboard", tmp_path, -1, rows)
    found = tensorboard_scalars(tmp_path)
    assert found["reward/heldout"] == [(0, 0.5), (1, -0.75)]
    assert found["reward/heldout_0_echo"] == [(0, 0.5)]


def test_rows_sent_afterwards_keep_row_0_and_the_images(tmp_path):
    first = feed("tensorboard", tmp_path, -1)
    first.log({"iteration": 0, "heldout_reward": 0.5})
    first.log_images(0, grid("red"))
    first.close(120.0)
    write("tensorboard", tmp_path, 2, [], earlier=[row(1, 0.5), row(2, 0.5)])
    assert [step for step, _ in tensorboard_scalars(tmp_path)["reward/heldout"]] == [0, 1, 2]
    assert [one.step for one in tensorboard_events(tmp_path).Images("samples/01")] == [0]


def test_unknown_metric_belongs_to_the_policy():
    assert tag_of("ratio_mean") == "policy/ratio_mean"
    assert tag_of("diversity") == "policy/diversity"


# A training in two segments, the second one begun anew after an iteration of it was written, with all three.


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("tracked"), t2i=tiny_t2i.shallow_folder())


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def experiment_sections(experiment):
    return {"captions": {"prompts": str(experiment.folder / "prompts.txt"), "heldout": 2}}


@pytest.fixture(scope="module")
def tracked(experiment, train_in_process, monkeypatch_module) -> Path:
    """The results folder."""
    need("wandb")
    need("trackio")
    chosen = ["tensorboard", "trackio", {"name": "wandb", "wandb": {"mode": "offline", "project": "ours"}}]
    config = experiment.config(
        "exp", sections=experiment_sections(experiment), iterations=4, checkpoints=[2, 4], trackers=chosen,
        tracked_images=SHOWN, heldout={"prompts": 2, "every": 2},
    )  # fmt: skip
    (experiment.folder / "heldout.jsonl").write_text(
        "".join(f'{{"image_id": "h{n}", "caption": "{text}"}}\n' for n, text in enumerate(PROMPTS[:2]))
    )
    where = {"trackers": experiment.folder / "results", "heldout": experiment.folder / "heldout.jsonl"}
    first = experiment.folder / "runs" / "2"
    monkeypatch_module.setattr("promptecho.trackers.feed.CLOSE_S", 600.0)  # to import the packages takes long here
    assert train_segment(experiment.segment("runs", config, 2, **where))
    assert train_segment(experiment.segment("runs", config, 4, resume=first, **where))
    # A segment whose checkpoint was lost: the same iterations once more.
    again = experiment.segment("again", config, 4, resume=first, **where)
    assert train_segment(again)
    assert same_bytes(again.out, experiment.folder / "runs" / "4") == []
    return experiment.folder / "results"


@pytest.fixture(scope="module")
def rows(experiment, tracked) -> list[dict]:
    return [one for step in ("2", "4") for one in read_jsonl(experiment.folder / "runs" / step / "metrics.jsonl")]


def test_a_run_has_the_same_bytes_without_trackers_and_images(experiment, tracked):
    config = experiment.config(
        "plain", sections=experiment_sections(experiment), iterations=4, checkpoints=[4], trackers=[],
        heldout={"prompts": 2, "every": 2},
    )  # fmt: skip
    assert train_segment(experiment.segment("plain", config, 4, heldout=experiment.folder / "heldout.jsonl"))
    plain, with_images = experiment.folder / "plain" / "4", experiment.folder / "runs" / "4"
    assert same_bytes(plain, with_images) == []
    assert metrics_without_times(plain)[-2:] == metrics_without_times(with_images)


def test_tensorboard_shows_one_run_with_images_of_each_checkpoint(tracked, rows):
    folder = tracked / "tensorboard" / "r"
    scalars, events = tensorboard_scalars(folder), tensorboard_events(folder)
    assert [step for step, _ in scalars["reward/mean"]] == [1, 2, 3, 4]
    assert [value for _, value in scalars["reward/mean"]] == pytest.approx([one["reward_mean"] for one in rows[1:]])
    assert [step for step, _ in scalars["reward/heldout"]] == [0, 2, 4]
    tags = sorted(events.Tags()["images"])
    assert tags == ["samples/01", "samples/02"]  # two captions are watched
    pictures = [(one.step, one.encoded_image_string) for one in events.Images("samples/01")]
    assert [step for step, _ in pictures] == [0, 2, 4]
    assert len({png for _, png in pictures}) == 3, "training changes them"
    (text, *_) = events.Tensors("samples/prompts/text_summary")
    assert PROMPTS[0] in text.tensor_proto.string_val[0].decode()


def test_wandb_has_segments_of_one_run_and_every_row_once(tracked, rows):
    folder = tracked / "trackers" / "wandb" / "r"
    found = wandb_runs(folder)
    assert len(found) == 3, "a file for each process"
    assert {one["id"] for one in found} == {sent_before(folder).id} and found[0]["id"].startswith("exp-r-")
    assert {(one["name"], one["project"]) for one in found} == {("r", "ours")}
    assert found[0]["config"]["training"]["seed"] == 1 and "trackers" not in found[0]["config"]["training"]
    written = [(step, values["reward/mean"]) for one in found for step, values in one["rows"].items() if step]
    assert written == [(one["iteration"], pytest.approx(one["reward_mean"])) for one in rows[1:]]
    captions = {step: values.get("samples.captions") for one in found for step, values in one["rows"].items()}
    assert captions == {0: PROMPTS[:2], 1: None, 2: PROMPTS[:2], 3: None, 4: PROMPTS[:2]}
    pictures = [path for one in found for path in one["folder"].glob("files/media/images/*.png")]
    assert len(pictures) == 6


def test_trackio_has_one_run_and_every_row_once(tracked, rows):
    files = tracked / "trackers" / "trackio" / "_files"
    (((name, _), written),) = trackio_rows(files).items()
    assert name == "r"
    means = [(step, one["reward/mean"]) for step, one in written if "reward/mean" in one]
    assert means == [(one["iteration"], pytest.approx(one["reward_mean"])) for one in rows[1:]]
    samples = [(step, one) for step, one in written if "samples/01" in one]
    assert [step for step, _ in samples] == [0, 2, 4]
    assert samples[0][1]["samples/01"]["caption"] == PROMPTS[0]
    assert (files / "media" / samples[0][1]["samples/01"]["file_path"]).is_file()


def test_rows_are_sent_afterwards_and_not_twice(experiment, tracked, rows, tmp_path):
    """`promptecho track` of the finished segments, to a tracker that had none of them."""
    results = tmp_path / "exp"
    for step in ("2", "4"):
        shutil.copytree(experiment.folder / "runs" / step, results / "runs" / "r" / step)
    command = ["track", str(results), "--to", "tensorboard"]
    folder, configs = results / "tensorboard" / "r", results / "config"
    configs.mkdir()
    trained = load_experiment(experiment.folder / "exp.yaml").model_dump(mode="json")
    other = {**trained, "runs": {"r": {**trained["runs"]["r"], "learning_rate": 0.5}}}
    (configs / f"{'0' * 16}.yaml").write_text(yaml.safe_dump(other))
    refused = CliRunner().invoke(app, command)
    assert f"{results}: no config/*.yaml is what run r was trained with (digest " in str(refused.exception)
    (configs / f"{'1' * 16}.yaml").write_text(yaml.safe_dump(trained))
    os.utime(configs / f"{'1' * 16}.yaml", (0, 0))
    live = results / "work/train/r/4/digest/ranks/0.json"
    write_json(live, asdict(Position(0, host=socket.gethostname(), pid=os.getpid())))
    assert "run r is being trained" in str(CliRunner().invoke(app, command).exception)
    live.unlink()
    for sent, more in ((5, []), (0, []), (5, ["--anew"])):
        result = CliRunner().invoke(app, [*command, *more])
        assert result.stdout == f"r: {sent} of 5 rows sent to tensorboard, files in {folder}\n", result.output
    assert [step for step, _ in tensorboard_scalars(folder)["reward/heldout"]] == [0, 2, 4]
    write_json(folder / "run.json", {**read_json(folder / "run.json"), "images": 4})
    assert "--anew would take back its images" in str(CliRunner().invoke(app, [*command, "--anew"]).exception)
    misspelt = CliRunner().invoke(app, ["track", str(results), "--to", "tensorbord"])
    assert "unknown tracker 'tensorbord'" in str(misspelt.exception) and "tensorboard" in str(misspelt.exception)


# What a configuration may say


RAW = {
    "experiment": "exp",
    "models": {"t2i": {"path": "shapes"}, "vlm": {"path": "shapes"}},
    "captions": {"prompts": "prompts.txt"},
    "runs": {"r": {}, "s": {"trackers": []}},
}


def of(*chosen, **more):
    return parse_experiment({**RAW, "training": {"trackers": list(chosen), **more}})


def test_no_choice_of_trackers_makes_a_training_again():
    plain = parse_experiment(RAW)
    assert [entry.name for entry in run_training(plain, "r").trackers] == ["tensorboard"]
    other = of({"name": "wandb", "wandb": {"mode": "offline"}}, "trackio", tracked_images=0)
    assert slice_digest(plain, "train", run="r") == slice_digest(other, "train", run="r")
    entry, short = run_training(other, "r").trackers
    assert entry.options.mode == "offline" and short.name == "trackio" and short.options.project is None
    assert "trackers" not in slice_value(other, "train", "r")["training"]
    again = parse_experiment(other.model_dump(mode="json"))
    assert run_training(again, "r").trackers == run_training(other, "r").trackers


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (["wandbb"], "training.trackers.0.name: input should be 'tensorboard', 'trackio' or 'wandb' (found 'wandbb'); "
                     "did you mean wandb?"),
        (["trackio", "trackio"], "training.trackers.1.name: trackio stands here twice; remove one of them"),
        ([{"name": "wandb", "wandb": {"mode": "of"}}], "training.trackers.0.wandb.mode: "),
        ([{"name": "wandb", "wandb": {"api_key": "k"}}], "training.trackers.0.wandb.api_key: "),
        ([{"name": "trackio", "wandb": {}}],
         "training.trackers.0.wandb: trackio has no such settings; remove it, or set name: wandb"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_key(chosen, told):
    with pytest.raises(ConfigError) as caught:
        of(*chosen)
    assert f"configuration: {told}" in str(caught.value)


def test_what_is_missing_is_told_before_anything_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name == "trackio" else object())
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    config = of("tensorboard", "trackio", "wandb")
    key = "no key is known: set the environment variable WANDB_API_KEY, run `wandb login`, or set mode: offline"
    package = "the package trackio is not installed: pip install --no-deps -r envs/trackio.txt"
    assert tracker_troubles(config) == {f"tracker trackio: {package}": ["r"], f"tracker wandb: {key}": ["r"]}
    found = list(trackers(preflight_of(config, tmp_path / "exp.yaml", None, None)))
    assert [one.severity for one in found] == ["warning", "warning"]
    assert found[0].line.startswith("tracker trackio: the package trackio is not installed; pip install --no-deps -r ")
    assert "of r: it trains, and this tracker gets nothing" in found[0].when
    assert (found[1].what, found[1].fix[:44]) == (
        "tracker wandb: no key is known", "set the environment variable WANDB_API_KEY, "
    )  # fmt: skip
    environment = tmp_path / "train.yaml"
    environment.write_text("dependencies: [{pip: [tensorboard==2.21.0, wandb==0.31.0]}]")
    assert [told.partition(" does not list")[0] for told in tracker_troubles(config, environment)] == [
        f"tracker trackio: {environment}", f"tracker wandb: {key}",
    ]  # fmt: skip
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0123\n")
    assert len(tracker_troubles(config)) == 1
    written = {**RAW, "training": {"trackers": ["trackio"]}}
    del written["experiment"]
    (tmp_path / "exp.yaml").write_text(yaml.safe_dump(written))
    checked = CliRunner().invoke(app, ["config", "check", str(tmp_path / "exp.yaml")])
    assert checked.exit_code == 0 and f"exp.yaml: warning: tracker trackio: {package}" in checked.stderr


def test_only_training_needs_a_tracker_whose_plugin_is_gone(tmp_path, monkeypatch):
    """The plugin was there when the configuration was resolved."""
    monkeypatch.chdir(tmp_path)
    raw = of("tensorboard").model_dump(mode="json")
    raw["runs"]["r"]["trackers"] = [{"name": "away", "away": {"project": "p"}}]
    raw["plugins"] = ["away_tracker:KIND"]
    resolved = Path("0123456789abcdef.yaml")
    resolved.write_text(yaml.safe_dump(raw))
    (entry,) = run_training(load_experiment(resolved), "r").trackers
    assert entry.model_dump() == {"name": "away", "away": {"project": "p"}}
    (told,) = tracker_troubles(load_experiment(resolved))
    assert told.startswith("tracker away: unknown tracker 'away'")
    gone = "plugins.0: away_tracker:KIND: no module away_tracker"
    where = ["--captions", "c.h5", "--out", "out", "--work", "work"]
    refused = CliRunner().invoke(app, ["train", "--config", str(resolved), "--run", "r", "--to", "1", *where]).exception
    assert isinstance(refused, ConfigError) and gone in str(refused) and not Path("work").exists()
    resolved.write_text(yaml.safe_dump({**raw, "rewards": [{"name": "away"}]}))
    with pytest.raises(ConfigError, match=gone):  # of what a stage needs, nothing is passed over
        load_experiment(resolved)
    Path("mine.yaml").write_text(yaml.safe_dump(raw))
    with pytest.raises(ConfigError, match=gone):  # an experiment file is checked whole
        load_experiment("mine.yaml")


class Unsure(TrackerOptions):
    def missing(self) -> str:
        raise KeyError("HOME\nof nobody")


def test_a_plugin_that_fails_to_say_what_is_missing_is_named_in_one_line(tmp_path, monkeypatch):
    unsure = TrackerKind(name="unsure", summary="a plugin", build="test_trackers:Unsure", options=Unsure)
    monkeypatch.setattr(TrackerSection, "tracker", property(lambda self: unsure))
    config = of("tensorboard")
    (told,) = tracker_troubles(config)
    assert told.startswith("tracker tensorboard: test_trackers.Unsure.missing() fails: correct that plugin (KeyError: ")
    assert "\n" not in told
    (found,) = trackers(preflight_of(config, tmp_path / "exp.yaml", None, None))
    assert found.what.endswith("Unsure.missing() fails") and found.fix.startswith("correct that plugin (KeyError: ")
    with pytest.raises(ConfigError, match="Unsure.missing"):
        chosen_tracker(config, "r", "tensorboard")


def test_the_tracker_that_the_docs_show_works(tmp_path, monkeypatch):
    page = (Path(__file__).resolve().parents[2] / "docs/extending.md").read_text()
    code = page[page.index("from promptecho.trackers import TrackerKind") :].partition("```")[0]
    (tmp_path / "csv_tracker.py").write_text(code)
    raw = {**RAW, "plugins": ["csv_tracker:KIND"], "training": {"trackers": ["csv"]}}
    del raw["experiment"]
    (tmp_path / "exp.yaml").write_text(yaml.safe_dump(raw))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(TRACKERS, "named", {})
    monkeypatch.setattr(sys, "path", [*sys.path])
    (entry,) = run_training(load_experiment("exp.yaml"), "r").trackers
    write(entry, tmp_path / "own", -1, [row(1, 0.5)])
    assert "1,reward/mean,0.5\n" in (tmp_path / "own" / "rows.csv").read_text()
    listed = CliRunner().invoke(app, ["list", "trackers", "--config", "exp.yaml", "--json"])
    assert [one["name"] for one in json.loads(listed.stdout)] == ["tensorboard", "trackio", "wandb", "csv"]


# Identity and troubles, with a tracker that keeps what it gets.


class Kept:
    runs: list = []

    def __init__(self, run):
        self.run, self.rows, self.images = run, [], []
        Kept.runs.append(self)

    def log(self, row):
        if row.get("full"):
            raise OSError("No space left on device")
        self.rows.append(row["iteration"])

    def log_images(self, iteration, images):
        self.images.append(iteration)

    def close(self):
        pass


@pytest.fixture
def kept(monkeypatch):
    """The tracker of the feed; each begun one is appended to what it returns."""
    kind = TrackerKind(name="kept", summary="keeps what it gets", build="test_trackers:Kept")
    monkeypatch.setattr(TrackerSection, "tracker", property(lambda self: kind))
    Kept.runs = []
    monkeypatch.setattr("promptecho.trackers.feed.abandoned", [])
    monkeypatch.setitem(sys.modules, "test_trackers", sys.modules[__name__])
    return Kept.runs


def test_sample_images_can_be_read_by_several_trackers_at_once(kept, tmp_path, monkeypatch):
    noise = [Image.effect_noise((512, 512), 90) for _ in range(8)]
    prompts = [TrainingPrompt(f"p-{number}", "A red circle.") for number in range(8)]

    def sample(*_, submit):
        submit(noise)
        return SimpleNamespace(mine=range(8))

    monkeypatch.setattr("promptecho.train.rollout.sample", sample)
    alone = SimpleNamespace(get_world_size=lambda: 1, all_gather_object=lambda shares, own: shares.__setitem__(0, own))
    monkeypatch.setattr("promptecho.train.tracked.dist", alone)
    trainer = Mock(heldout=prompts, phase=lambda _: contextlib.nullcontext())
    trainer.training.tracked_images = 8
    together = threading.Barrier(2)

    def log_images(self, iteration, images):
        for one in images:
            together.wait(60)
            assert len(one.image.tobytes()) == 512 * 512 * 3

    monkeypatch.setattr(Kept, "log_images", log_images)
    told: list[str] = []
    both = [feed("tensorboard", tmp_path / name, said=told) for name in "ab"]
    TrackerFeeds(both).log_images(0, sample_grid(trainer, {}))
    for one in both:
        one.close(120.0)
    assert told == []


def test_rows_that_were_written_are_not_written_again_and_another_training_is_another_run(kept, tmp_path):
    write("tensorboard", tmp_path, -1, [row(1, 0.5), row(2, 0.5), row(3, 0.5)])
    write("tensorboard", tmp_path, 1, [row(2, 0.5), row(3, 0.5), row(4, 0.5)])
    write("tensorboard", tmp_path, -1, [row(1, 0.5)], training="other")
    first, second, other = kept
    assert (first.rows, second.rows, other.rows) == ([1, 2, 3], [4], [1])
    assert first.run.id == second.run.id != other.run.id
    assert (first.run.resumed, second.run.resumed, other.run.resumed) == (False, True, False)


def test_a_segment_gives_a_tracker_the_rows_of_earlier_ones_that_it_lacks(kept, tmp_path):
    for step, rows in {2: [row(1, 0.5), row(2, 0.5)], 4: [row(3, 0.5), row(4, 0.5)], 8: [row(5, 9.0)]}.items():
        write_jsonl(tmp_path / "runs" / str(step) / "metrics.jsonl", rows)
    segment = Mock(config=of("tensorboard"), run="r", trackers=tmp_path, tensorboard=None, resume=tmp_path / "runs/4")
    for start, own in ((4, []), (5, [row(5, 0.5)])):
        begun = begin_trackers(segment, start, own)
        begun.close()
    assert [one.rows for one in kept] == [[1, 2, 3, 4], [5]]


def test_a_killed_process_leaves_its_last_row_to_be_written_again(kept, tmp_path):
    one = feed("tensorboard", tmp_path)
    for number in (1, 2):
        one.log(row(number, 0.5))
    one.log_images(2, grid("red"))
    while sent_before(tmp_path) is None or sent_before(tmp_path).images < 2:
        pass
    write("tensorboard", tmp_path, -1, [row(1, 0.5), row(2, 0.5), row(3, 0.5)])  # the first was never closed
    assert kept[1].rows == [2, 3]
    one.close(0.1)


def test_a_tracker_that_fails_is_told_once_and_the_others_go_on(kept, tmp_path):
    told: list[str] = []
    one = feed("tensorboard", tmp_path, said=told)
    for number in range(1, 5):
        one.log({**row(number, 0.5), "full": number > 1})
    one.close(60.0)
    assert kept[0].rows == [1] and one.failed
    rows = [row(number, 0.5) for number in range(1, 5)]
    write("tensorboard", tmp_path, 4, [row(5, 0.5)], earlier=rows)  # the next segment gives it what it lacks
    assert kept[1].rows == [1, 2, 3, 4, 5] and sent_before(tmp_path).row == 5
    feed("tensorboard", tmp_path, 8, said=told, earlier=rows).close(60.0)
    assert told.pop() == "tracker tensorboard: it lacks rows of iterations 6 to 8: no metrics.jsonl has them"
    assert told == [
        "tracker tensorboard: OSError: No space left on device; the rows stay in metrics.jsonl: later, "
        "promptecho track results/exp --run r --to tensorboard"
    ]


def test_a_tracker_that_hangs_holds_nobody_up(kept, tmp_path, monkeypatch):
    go_on, told = threading.Event(), []
    write("tensorboard", tmp_path, -1, [row(1, 0.5)])
    monkeypatch.setattr(Kept, "log_images", lambda *_: go_on.wait())
    monkeypatch.setattr("promptecho.trackers.feed.abandoned", abandoned := [])
    one = feed("tensorboard", tmp_path, 1, said=told)
    for number in (2, 3, 4):
        one.log(row(number, 0.5))
    one.log_images(4, grid("red"))
    while not kept[1:] or kept[1].rows != [2, 3, 4]:
        pass
    one.close(0.2)
    assert sent_before(tmp_path).row == 1, "what it took may never have arrived"
    assert abandoned == [one], "the command ends the process without waiting for it"
    go_on.set()
    assert [line.partition(";")[0] for line in told] == ["tracker tensorboard: has not taken all rows within 0 s"]


def test_a_tracker_that_exits_or_never_begins_is_told_and_leaves_no_record(kept, tmp_path, monkeypatch):
    monkeypatch.setattr(Kept, "__init__", lambda self, run: sys.exit(3))
    told: list[str] = []
    feed("tensorboard", tmp_path, said=told).close(60.0)
    assert told[0].startswith("tracker tensorboard: SystemExit: 3; ") and sent_before(tmp_path) is None


def test_the_command_ends_at_once_after_a_tracker_failed(tmp_path):
    code = (
        "import atexit, sys, time; from promptecho import cli; from promptecho.trackers import feed\n"
        "atexit.register(time.sleep, 3600); feed.abandoned.append(None)\n"
        "sys.argv = ['promptecho', 'track', 'nowhere', '--to', 'tensorboard']; cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr[:28]) == (1, "promptecho: nowhere: no such")


class NeedsKey(TrackerOptions):
    key: str


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"folder": "x/{experiment}/{run}"}, "folder 'x/{experiment}/{run}': take a path in results/E, without .., "),
        ({"folder": "../{run}"}, "folder '../{run}': take "),
        ({"folder": "/tmp/{run}"}, "folder '/tmp/{run}': take "),
        ({"folder": "trackers/own"}, "folder 'trackers/own': take "),
        ({"options": NeedsKey}, "options: key: must have a default that is valid"),
    ],
)
def test_mistakes_of_a_descriptor_are_told_in_one_line(wrong, told):
    with pytest.raises(ValueError) as caught:
        TrackerKind(name="own", summary="of ours", build="own:Own", **wrong)
    assert str(caught.value).startswith(f"TrackerKind: {told}") and "\n" not in str(caught.value)


def test_a_missing_package_is_told_with_the_command_that_installs_it(tmp_path, monkeypatch):
    kind = TrackerKind(
        name="away",
        summary="not here",
        build="nowhere:Away",
        package="nowhere_at_all.part",
        install="pip install nowhere",
    )
    monkeypatch.setattr(TrackerSection, "tracker", property(lambda self: kind))
    told: list[str] = []
    feed("tensorboard", tmp_path, said=told).close(60.0)
    assert told[0].startswith(
        "tracker tensorboard: the package nowhere_at_all.part is not installed: pip install nowhere;"
    )
