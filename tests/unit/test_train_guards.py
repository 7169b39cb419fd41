"""What stops a run, and what it leaves: numbers that are not finite, ranks that hang, held-out rewards that fall."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest
import tiny_vlm
import torch
from forked import ranks, run, start
from tiny_experiment import Experiment, metrics_without_times, same_bytes

from promptecho.errors import DataError, PromptEchoError, RewardError
from promptecho.files import read_json, read_jsonl, write_jsonl
from promptecho.train.heldout import EarlyStop
from promptecho.train.loop import train_segment
from promptecho.train.scoring import permuted
from promptecho.train.stop import StopCheck, StopRequestedError
from promptecho.train.watchdog import Position, Watchdog, blame

pytestmark = pytest.mark.usefixtures("train_in_process")


@pytest.fixture(scope="module")
def experiment(tmp_path_factory) -> Experiment:
    return Experiment(tmp_path_factory.mktemp("guards"))


HELDOUT = {"captions": {"prompts": "unused.txt", "heldout": 3}}  # what the configuration promises; the files are ours


@pytest.fixture(scope="module")
def heldout(experiment) -> Path:
    path = experiment.folder / "heldout_captions.jsonl"
    write_jsonl(path, [{"data_id": f"h{i}", "caption": text} for i, text in enumerate(["A red star.", "Two rings."])])
    return path


# Numbers that are not finite.


def test_a_loss_that_is_not_finite_is_dumped_and_computed_again(experiment):
    config = experiment.config("diverge", iterations=1, checkpoints=[1], learning_rate=1e30, max_grad_norm=1e30)
    job = experiment.segment("diverge", config, 1)
    with pytest.raises(
        PromptEchoError, match=r"optimizer step 2: the (loss|gradient) is not finite on prompt"
    ) as caught:
        train_segment(job)
    message = str(caught.value)
    assert "\n" not in message and not job.out.exists()
    folder = Path(message.rsplit("--replay ", 1)[1])
    assert folder.parent == job.work
    facts = read_json(folder / "dump.json")
    assert facts["iteration"] == 1 and all(name in message for name in facts["prompt_ids"])
    found = json.loads(_stdout(["train", "--config", str(config), "--replay", str(folder)]))
    assert [image["prompt_id"] for image in found["images"]] == facts["prompt_ids"]
    for image in found["images"]:
        assert isinstance(image["loss" if facts["kind"] == "loss" else "grad_norm"], str), image  # "nan" or "inf"


def _stdout(arguments: list[str]) -> str:
    process = start(arguments)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr[-3000:]
    return stdout


def test_a_reward_that_is_not_finite_leaves_image_label_and_a_command(tmp_path, heldout):
    from transformers import Qwen3VLForConditionalGeneration

    folder = tiny_vlm.build(tmp_path / "vlm")
    model = Qwen3VLForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        model.model.language_model.norm.weight.fill_(float("nan"))
    model.save_pretrained(folder)
    experiment = Experiment(tmp_path / "e", vlm=folder)
    job = experiment.segment("nan", experiment.config("nan", iterations=1, checkpoints=[1]), 1)
    with pytest.raises(RewardError, match=r"prompt 00000\d, image image 0 of iteration 1: the reward is not") as caught:
        train_segment(job)
    words = shlex.split(str(caught.value).split("to score it again: ", 1)[1])
    assert words[:2] == ["promptecho", "reward"]
    process = start(words[1:])
    _, stderr = process.communicate()
    assert process.returncode == 1 and "the reward is not finite" in stderr

    watch = {"prompts": 1, "every": 1}  # the untrained model is evaluated first, so the fault is met there
    config = experiment.config("watched", sections=HELDOUT, iterations=1, checkpoints=[1], heldout=watch)
    job = experiment.segment("watched", config, 1, heldout=heldout)
    with pytest.raises(RewardError, match=r"prompt h\d, image image 0 held out: .* to score it again: promptecho"):
        train_segment(job)
    assert (job.work / "not-finite-0-rank0" / "image.png").is_file()


# Hanging.


def test_the_ranks_that_are_furthest_behind_are_blamed():
    ranks = [Position(0, 7, "exchange", 0, "a", 1), Position(1, 7, "reward", 2, "b", 2), Position(2, 7, "exchange")]
    assert blame(ranks).startswith(
        "rank 1 (b, pid 2) in phase reward, step 2, of iteration 7: it is behind the other 2"
    )
    assert "all 2 processes are in phase update" in blame([Position(0, 3, "update", 1), Position(1, 3, "update", 1)])


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ((0.5, 600), r"\(training.timeout_s is 0\): rank 0 .* in phase sample, step 3, of iteration 1"),
        ((600, 0.5), r"\(training.load_timeout_s is 0\): rank 0 .* in phase load_vlm.* raise that key if the models'"),
    ],
    ids=["sampling", "loading"],
)  # fmt: skip
def test_loading_has_a_limit_of_its_own(tmp_path, limits, said):
    child = os.fork()
    if child == 0:
        os.dup2(os.open(tmp_path / "stderr", os.O_CREAT | os.O_WRONLY), 2)
        sys.stderr = os.fdopen(2, "w")
        with Watchdog(tmp_path / "ranks", 0, 1, *limits) as watchdog:
            watchdog("load_vlm", 0)
            time.sleep(3)  # longer than `timeout_s` of the first case
            watchdog("sample", 1, 3)
            time.sleep(600)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 70
    assert re.search(said, (tmp_path / "stderr").read_text())


def test_a_rank_that_hangs_ends_the_run_and_is_named(experiment):
    config = experiment.config("hang", iterations=4000, checkpoints=[4000], timeout_s=20)
    process = start(experiment.train(config, 4000, "hang"), ranks(2))
    work, stopped = experiment.folder / "hang" / "work" / "4000", None
    try:
        while process.poll() is None and stopped is None:
            time.sleep(0.05)
            if any((work / "states").glob("[0-9]*")):
                stopped = int(read_json(work / "ranks" / "1.json")["pid"])
                os.kill(stopped, signal.SIGSTOP)
                # Its last words must be older than what rank 0 will say, or nobody would be behind.
                saved = max(int(path.name) for path in (work / "states").glob("[0-9]*"))
                if read_json(work / "ranks" / "1.json")["iteration"] > saved:
                    os.kill(stopped, signal.SIGCONT)
                    stopped = None
        # The launcher would wait for the stopped process, which can't leave.
        speaker = read_json(work / "ranks" / "0.json")["pid"]
        while process.poll() is None and Path(f"/proc/{speaker}").exists():
            time.sleep(0.1)
        os.kill(stopped, signal.SIGKILL)
        _, stderr = process.communicate(timeout=300)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert process.returncode != 0
    line = next(line for line in stderr.splitlines() if "no step boundary for" in line)
    assert re.search(rf"rank 1 \(.*pid {stopped}\) in phase \w+, step \d+, of iteration \d+: it is behind", line), line
    assert "training.timeout_s is 20" in line


# Ctrl-C.


def test_the_first_ctrl_c_asks_training_to_stop_and_the_second_ends_it(capfd):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in a shell's background
    stop = StopCheck(None)
    stop.install()
    signal.raise_signal(signal.SIGINT)
    assert stop.signalled and "Ctrl-C again ends it at once" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


# The held-out reward and the early stop.


def test_early_stop_counts_evaluations_without_a_new_best():
    from promptecho.config.training_parts import HeldoutSection

    section, early = HeldoutSection(prompts=1, patience=2, min_delta=0.1), EarlyStop()
    assert [early.update(score, i, section) for i, score in enumerate([1.0, 1.05, 1.2])] == [True, False, True]
    assert (early.best, early.best_iteration, early.stopped) == (1.2, 2, False)
    assert [early.update(score, i, section) for i, score in enumerate([1.25, 1.0], start=3)] == [False, False]
    assert early.stopped and early.best_iteration == 2


def test_the_held_out_reward_is_watched_and_an_early_stop_keeps_the_best_weights(experiment, heldout):
    watch = {"prompts": 2, "every": 1, "patience": 2, "min_delta": 1000.0}  # nothing is ever a new best
    config = experiment.config("early", sections=HELDOUT, checkpoints=[1, 4, 8], heldout=watch, ema={"decay": None})
    one, four, eight = (
        experiment.segment("early", config, to, resume=resume, heldout=heldout)
        for to, resume in ((1, None), (4, experiment.folder / "early" / "1"), (8, experiment.folder / "early" / "4"))
    )
    for job in (one, four, eight):
        assert train_segment(job)
    rows = [row for job in (one, four, eight) for row in metrics_without_times(job.out)]
    assert [row["iteration"] for row in rows] == [0, 1, 2]  # two evaluations without a new best after the first
    assert all(row["heldout_reward"] == row["heldout_reward_0_echo"] for row in rows)
    state = read_json(eight.out / "state" / "state.json")
    assert state["early_stop"]["stopped"] and state["early_stop"]["best_iteration"] == 0 and state["iteration"] == 2
    for job in (four, eight):
        weights = torch.cat([value.flatten() for name, value in _adapter(job.out).items() if "lora_B" in name])
        assert weights.abs().max() == 0, "the best weights are the untrained ones"
    assert any(value.abs().max() > 0 for name, value in _adapter(one.out).items() if "lora_B" in name)


def test_a_stop_before_the_first_iteration_counts_no_evaluation_twice(experiment, heldout, monkeypatch):
    watch = {"prompts": 2, "every": 1, "patience": 2, "min_delta": 1000.0}
    config = experiment.config("twice", sections=HELDOUT, checkpoints=[2], iterations=2, heldout=watch)
    whole, resumed = (experiment.segment(name, config, 2, heldout=heldout) for name in ("whole", "resumed"))
    assert train_segment(whole)
    with monkeypatch.context() as patch:
        patch.setattr("promptecho.train.loop.iterate", Mock(side_effect=StopRequestedError))
        assert not train_segment(resumed)
    assert train_segment(resumed)
    assert same_bytes(whole.out, resumed.out) == []
    assert metrics_without_times(whole.out) == metrics_without_times(resumed.out)
    stopped = [read_json(job.out / "state" / "state.json")["early_stop"] for job in (whole, resumed)]
    assert stopped[0] == stopped[1] and [row["iteration"] for row in metrics_without_times(resumed.out)] == [0, 1, 2]


def _adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter" / "adapter_model.safetensors")


def test_watching_changes_nothing_else(experiment, heldout):
    plain = experiment.segment("plain", experiment.config("plain", checkpoints=[2], iterations=2), 2)
    config = experiment.config(
        "watched", sections=HELDOUT, checkpoints=[2], iterations=2, heldout={"prompts": 2, "every": 1}
    )
    watched = experiment.segment("watched", config, 2, heldout=heldout)
    assert train_segment(plain) and train_segment(watched)
    for name, value in _adapter(plain.out).items():
        assert torch.equal(_adapter(watched.out)[name], value), name
    rows = [row for row in metrics_without_times(watched.out) if row["iteration"] > 0]
    bare = [{k: v for k, v in row.items() if not k.startswith("heldout")} for row in rows]
    assert bare == metrics_without_times(plain.out)


def test_too_few_held_out_captions_are_one_line(experiment, heldout):
    config = experiment.config("few", sections=HELDOUT, checkpoints=[1], iterations=1, heldout={"prompts": 3})
    with pytest.raises(DataError, match="2 held-out captions, but training.heldout.prompts is 3"):
        train_segment(experiment.segment("few", config, 1, heldout=heldout))
    with pytest.raises(DataError, match="--heldout must name"):
        train_segment(experiment.segment("few", config, 1))


# Composed rewards.


@pytest.fixture(scope="module")
def labels(experiment) -> Path:
    from promptecho.train.setup import load_prompts

    path = experiment.folder / "labels.jsonl"
    rows = [
        {"data_id": prompt.prompt_id, "label": {"text": [prompt.text[::-1]]}}
        for prompt in load_prompts(experiment.captions)
    ]
    write_jsonl(path, rows)
    return path


def test_rewards_compose_each_with_its_query_and_label(experiment, labels):
    rewards = [{"name": "echo"}, {"name": "echo", "weight": 0.5, "query": "Read the text.", "label": str(labels)}]
    training = {"iterations": 1, "checkpoints": [1], "advantage": {"scale": "global_std"}}
    both = experiment.segment("both", experiment.config("both", sections={"rewards": rewards}, **training), 1)
    first = experiment.segment("first", experiment.config("first", **training), 1)
    second_config = experiment.config("second", sections={"rewards": [{**rewards[1], "weight": 1.0}]}, **training)
    second = experiment.segment("second", second_config, 1)
    for job in (both, first, second):
        assert train_segment(job)
    row, a, b = (metrics_without_times(job.out)[0] for job in (both, first, second))
    # Same images, so each reward is what it is alone, whatever its weight.
    assert row["reward_0_echo"] == a["reward_0_echo"] and row["reward_1_echo"] == b["reward_0_echo"]
    assert a["reward_0_echo"] != b["reward_0_echo"]
    assert row["reward_mean"] == pytest.approx(a["reward_mean"] + 0.5 * b["reward_mean"])


def test_a_prompt_without_a_label_is_named(experiment, labels):
    rows = read_jsonl(labels)
    short = experiment.folder / "short.jsonl"
    write_jsonl(short, rows[1:])
    config = experiment.config("short", sections={"rewards": [{"name": "echo", "label": str(short)}]})
    with pytest.raises(
        DataError, match=rf"short.jsonl: no label for 1 of 6 prompts of rewards.0 \({rows[0]['data_id']}\)"
    ):
        train_segment(experiment.segment("short", config, 2))


def test_another_label_file_is_another_run(experiment, labels):
    own = experiment.folder / "own.jsonl"
    own.write_bytes(labels.read_bytes())
    sections = {"rewards": [{"name": "echo", "label": str(own)}]}
    config = experiment.config("own", sections=sections, iterations=2, checkpoints=[1, 2])
    first = experiment.segment("own", config, 1)
    assert train_segment(first)
    write_jsonl(own, [{**row, "label": "Another text."} for row in read_jsonl(own)])
    told = "belongs to other captions or labels: .*; restore the label file of rewards.0"
    with pytest.raises(PromptEchoError, match=told):
        train_segment(experiment.segment("own", config, 2, resume=first.out))


def test_permuted_rewards_stay_with_their_prompt_and_leave_their_image():
    rewards = torch.arange(2 * 3 * 8, dtype=torch.float64).view(2, 3, 8)
    dealt = permuted(rewards, seed=1, iteration=4)
    assert torch.equal(dealt.sort(2).values, rewards) and not torch.equal(dealt, rewards)
    assert torch.equal(dealt[0] - rewards[0, :, :1], dealt[1] - rewards[1, :, :1])  # both rewards move together
    assert torch.equal(dealt, permuted(rewards, seed=1, iteration=4))
    assert not torch.equal(dealt, permuted(rewards, seed=1, iteration=5))


def test_a_control_run_differs_in_its_advantages_alone(experiment):
    plain, control = (
        experiment.segment(name, experiment.config(name, iterations=1, checkpoints=[1], control=name), 1)
        for name in ("none", "permuted_rewards")
    )
    assert train_segment(plain) and train_segment(control)
    a, b = (metrics_without_times(job.out)[0] for job in (plain, control))
    for key in ("reward_mean", "reward_group_std", "advantage_abs_mean", "diversity"):
        assert a[key] == pytest.approx(b[key]), key
    assert a["policy_loss"] != b["policy_loss"]


# The paper's own numbers.


def test_256_images_in_batches_of_128_and_4_passes_are_8_optimizer_steps(experiment, tmp_path):
    from promptecho.captions.merge import MergeSpec, import_prompts

    (tmp_path / "prompts.txt").write_text("\n".join(f"A red circle and {n} blue stars." for n in range(40)))
    captions = tmp_path / "captions.h5"
    import_prompts(tmp_path / "prompts.txt", MergeSpec(out=captions, heldout_out=tmp_path / "h.jsonl", heldout=0))
    config = experiment.config(
        "paper", iterations=1, checkpoints=[1], prompts_per_iteration=32, images_per_prompt=8, batch_size=128, passes=4,
        micro_batch_size=64, sampling={"batch_size": 64, "num_inference_steps": 2, "guidance_scale": 0.0},
    )  # fmt: skip
    job = experiment.segment("paper", config, 1, captions=captions)
    assert train_segment(job)
    assert metrics_without_times(job.out)[0]["optimizer_steps"] == 8


def test_the_training_command_says_what_is_missing(experiment):
    stderr = run(["train", "--replay", "x"], code=1)
    assert "--replay needs the --config" in stderr
