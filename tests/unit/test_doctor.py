"""The preflight finds what stops an experiment, with the culprit, the job that it would strike, and the fix."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hub_server import Hub
from judge_server import KEY, serving
from PIL import Image
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.cluster.gpus import detect
from promptecho.config.yaml_files import deep_merge
from promptecho.doctor import prompt_files as prompt_files_module
from promptecho.doctor.cluster import JobNeeds, cluster, jobs_of, misfits, parse_partitions
from promptecho.doctor.diagnosis import run_checks
from promptecho.doctor.finding import Finding, problem
from promptecho.doctor.images import images_readable, images_there
from promptecho.doctor.judge_costs import judge_costs
from promptecho.doctor.judges import judge_keys, judges_answer
from promptecho.doctor.local_gpus import local_gpus
from promptecho.doctor.models import models
from promptecho.doctor.packages import packages
from promptecho.doctor.places import clock, file_system, results_writable, room, shared_folders
from promptecho.doctor.preflight import Preflight, make_preflight
from promptecho.doctor.probe import Probe, of_node, probe
from promptecho.doctor.profile import WorkflowProfile, read_profile
from promptecho.doctor.profile_mistakes import profile_mistakes
from promptecho.doctor.prompt_files import prompt_files
from promptecho.doctor.texts import texts
from promptecho.doctor.torch_build import torch_build
from promptecho.doctor.totals import Totals, budgets, make_totals
from promptecho.judges.base import Payload
from promptecho.judges.errors import JudgeError
from promptecho.judges.registry import load_judge
from promptecho.models import hub_access
from promptecho.models.completeness import incompleteness
from promptecho.shipped import weights_of

EXPERIMENT: dict[str, Any] = {
    "models": {"t2i": {"path": "shapes", "dtype": "float32", "height": 64, "width": 64}, "vlm": {"path": "shapes"}},
    "captions": {"images": "data/images", "heldout": 2},
    "training": {"iterations": 2, "checkpoints": [2]},
    "runs": {"echo": {"seed": 1}},
    "image_sets": {"geneval": {"benchmark": "geneval", "shapes": {"per_tag": 1, "seed": 1}}},
    "benchmarks": {"geneval": {"image_set": "geneval", "scorer": "geneval", "backend": "oracle"}},
    "evaluate": [{"benchmark": "geneval"}],
}
Make = Callable[..., Preflight]


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Make:
    """Writes the experiment with changed keys to a folder in which the preflight then starts."""
    monkeypatch.chdir(tmp_path)

    def make(profile: Path | None = None, **changes: Any) -> Preflight:
        Path("config/experiments").mkdir(parents=True, exist_ok=True)
        Path("config/config.yaml").write_text("experiments: [tiny]\n")
        Path("config/experiments/tiny.yaml").write_text(yaml.safe_dump(deep_merge(EXPERIMENT, changes)))
        return make_preflight(Path("config/experiments/tiny.yaml"), profile)

    return make


def draw(count: int, folder: str = "data/images") -> Path:
    """So many images, each of another size."""
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    for k in range(count):
        Image.new("RGB", (40 + k, 30), (k, 0, 0)).save(place / f"{k}.png")
    return place


def only(findings: Iterable[Finding], severity: str = "problem") -> Finding:
    """The one finding of a severity."""
    found = [one for one in findings if one.severity == severity]
    assert len(found) == 1, found
    assert found[0].what and (severity == "fine" or (found[0].when and found[0].fix)), found
    return found[0]


def test_an_empty_folder_of_images_is_found_before_captioning(experiment):
    Path("data/images").mkdir(parents=True)
    preflight = experiment()
    found = only(images_there(preflight))
    assert "captions.images: data/images: holds no images" in found.what and "caption_shard" in found.when
    shutil.rmtree("data/images")
    assert "data/images: no such image folder" in only(images_there(preflight)).what
    draw(3)
    assert only(images_there(preflight), "fine").what.startswith("data/images: 3 images, ")


def test_images_that_cannot_be_read_are_found_by_name_and_against_what_the_merge_allows(experiment):
    folder = draw(25)
    whole = (folder / "7.png").read_bytes()
    (folder / "7.png").write_bytes(whole[: len(whole) // 2])
    preflight = experiment(captions={"max_rejected_share": 0.05})
    told = list(images_readable(preflight))
    assert "data/images/7.png: not a readable image" in only(told, "warning").what
    assert "all of 25 images read: 24 are readable, 40x30 to 64x30 pixels" in only(told, "fine").what
    (folder / "8.png").write_bytes(b"")
    assert "1 image is an empty file: 8.png" in only(images_there(preflight), "warning").what
    tight = experiment(captions={"max_rejected_share": 0.03})
    assert "0.03 is left out" in only(images_there(tight)).what
    (folder / "8.png").write_bytes(whole[:50])
    found = [one for one in images_readable(preflight) if one.severity == "problem"]
    assert len(found) == 2 and "2 of 25 that were read cannot be captioned" in found[0].what
    assert "rule captions" in found[0].when and "0.05" in found[0].fix


def in_two_shards(folder: Path) -> Path:
    """The shipped VLM, with its weights in two files as large models have them."""
    shutil.copytree(weights_of("shapes") / "vlm", folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    half = len(names) // 2
    files = {"model-00001-of-00002.safetensors": names[:half], "model-00002-of-00002.safetensors": names[half:]}
    for file, some in files.items():
        save_file({name: tensors[name] for name in some}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, some in files.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_model_without_one_of_its_shards_is_found_before_captioning(experiment, tmp_path):
    folder = in_two_shards(tmp_path / "vlm")
    preflight = experiment(models={"vlm": {"path": str(folder)}})
    assert {one.severity for one in models(preflight)} == {"fine"}
    shard = folder / "model-00002-of-00002.safetensors"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-4])
    found = only(models(preflight))
    assert f"models.vlm.path: {shard}: has {len(whole) - 4} of {len(whole)} bytes" in found.what
    shard.unlink()
    found = only(models(preflight))
    assert f"{shard}: is not there, and model.safetensors.index.json names it" in found.what
    assert "caption_shard" in found.when and "config/experiments/tiny.yaml" in found.fix


def test_files_that_are_not_loaded_do_not_count_and_those_that_are_do(tmp_path):
    folder = tmp_path / "vlm"
    shutil.copytree(weights_of("shapes") / "vlm", folder)
    index, whole = folder / "model.safetensors.index.json", folder / "model.safetensors"
    index.write_text(
        json.dumps({"weight_map": {"a": "model-00001-of-00002.safetensors"}})
    )  # of before they were joined
    (folder / "notes.safetensors").write_bytes(b"cut")
    assert incompleteness(folder, "transformers") is None
    whole.unlink()
    assert "model-00001-of-00002.safetensors: is not there" in (incompleteness(folder, "transformers") or "")
    for value in (None, ["a"]):
        index.write_text(json.dumps({"weight_map": value}))
        assert "has no weight_map" in (incompleteness(folder, "transformers") or "")
    index.unlink()
    (folder / "notes.safetensors").unlink()
    assert (folder / "tokenizer_config.json").is_file()
    assert "holds no weights" in (incompleteness(folder, "transformers") or "")


def test_an_empty_part_of_a_pipeline_and_a_cut_adapter_are_found(tmp_path):
    folder = tmp_path / "t2i"
    shutil.copytree(weights_of("shapes") / "t2i", folder)
    assert incompleteness(folder, "pipeline") is None
    part = folder / "tokenizer"
    shutil.rmtree(part)
    part.mkdir()
    assert f"{part}: is empty" in (incompleteness(folder, "pipeline") or "")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file({"a": np.zeros(4, np.float32)}, adapter / "adapter_model.safetensors")
    assert incompleteness(adapter, "adapter") is None
    (adapter / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes()[:-1])
    assert "adapter_model.safetensors: has " in (incompleteness(adapter, "adapter") or "")


def test_a_hub_that_may_not_be_asked_or_refuses_is_a_problem(experiment, monkeypatch):
    from huggingface_hub import constants

    hub = Hub({"some/open": {"config.json": b"{}"}, "some/gated": {"config.json": b"{}"}})
    hub.gated.add("some/gated")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    def told(vlm: str) -> Finding:
        return next(one for one in models(experiment(models={"vlm": {"path": vlm}})) if one.severity != "fine")

    try:
        assert told("some/open").severity == "warning"
        assert told("some/typo").severity == "problem" and "has no such model" in told("some/typo").what
        assert told("some/gated").severity == "problem" and "HTTP 40" in told("some/gated").what
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert told("some/open").severity == "problem" and "HF_HUB_OFFLINE is set" in told("some/open").what
    finally:
        hub.close()


def test_a_check_that_fails_in_itself_hides_nothing(experiment, monkeypatch):
    def broken(preflight: Preflight) -> Iterable[Finding]:
        yield problem("the first", "now", "mend it")
        raise TypeError("no such thing\nand more")

    done = run_checks(experiment(), {"broken": broken, "clock": clock})
    assert [[one.severity for one in check.findings] for check in done] == [["problem", "unchecked"], ["fine"]]
    assert done[0].findings[1].what == "broken: TypeError: no such thing"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # a Python for Snakemake alone
    found = only(models(experiment(models={"vlm": {"path": "some/vlm"}})), "unchecked")
    assert "models.vlm.path: some/vlm: not looked at: " in found.what and "huggingface_hub" in found.what


def test_an_empty_folder_is_no_model_and_a_missing_one_is_none(experiment, tmp_path):
    (tmp_path / "t2i").mkdir()
    nowhere = {"path": str(tmp_path / "nowhere")}
    found = list(models(experiment(models={"t2i": {"path": str(tmp_path / "t2i")}, "vlm": nowhere})))
    assert [one.severity for one in found] == ["problem", "problem"]
    assert "has no model_index.json" in found[0].what and "rule train" in found[0].when
    assert f"{tmp_path / 'nowhere'}: no such folder" in found[1].what


def test_a_model_that_only_the_hub_has_is_a_problem_where_nobody_can_fetch_it(experiment):
    preflight = experiment(models={"vlm": {"path": "some/vlm"}})
    offline = preflight.config.model_copy(update={"models_offline": True})
    found = only(models(Preflight(offline, preflight.source, None, None, preflight.stages, preflight.benchmarks)))
    assert "models.vlm.path: some/vlm: not in the hub's cache" in found.what and "models.offline" in found.what
    assert found.fix == "where there is internet: promptecho models fetch --config config/experiments/tiny.yaml"


@pytest.mark.skipif(importlib.util.find_spec("modelscope") is not None, reason="ModelScope is installed here")
def test_a_backend_whose_packages_are_not_installed_is_found_before_anything_is_scored(experiment):
    official = {"benchmark": "dpg", "prompts": "data/benchmarks/dpg/dpg_bench.csv"}
    mplug = {"image_set": "dpg", "scorer": "dpg", "backend": "mplug"}
    preflight = experiment(
        image_sets={"dpg": official}, benchmarks={"dpg": mplug}, evaluate=[{"benchmark": "dpg"}]
    )  # fmt: skip
    found = only(packages(preflight))
    assert "benchmarks.dpg, backend mplug: not installed: " in found.what and "modelscope==" in found.what
    assert "rule score" in found.when and "conda" in found.fix


def test_conda_environments_need_conda(experiment, tmp_path, monkeypatch):
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text("software-deployment-method: conda\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    found = only(packages(experiment(profile)))
    assert "no conda on PATH" in found.what and "start of Snakemake" in found.when


def test_environments_of_the_site_are_looked_at_where_it_names_a_folder_of_them(experiment):
    preflight = replace(experiment(), envs=Path("built"))
    found = [one for one in packages(preflight) if one.severity == "problem"]
    assert found and all("is not in built" in one.what and "start of Snakemake" in one.when for one in found)
    assert {one.fix for one in found} >= {f"promptecho envs build {name} --into built" for name in ("train", "tables")}


@pytest.mark.parametrize("method", ["conda", "apptainer"])
def test_environments_of_the_site_beside_other_ones_are_a_problem(experiment, tmp_path, method):
    written(tmp_path / "p", f"software-deployment-method: {method}\n")
    found = only(packages(replace(experiment(tmp_path / "p"), envs=Path("built"))))
    assert f"config/config.yaml: envs, and {tmp_path}/p/config.yaml: software-deployment-method: {method}" in found.what


def test_the_command_lists_all_problems_at_once_and_ends_with_1(experiment):
    experiment(models={"vlm": {"path": "/nowhere/vlm"}})
    line = ["doctor", "--config", "config/experiments/tiny.yaml", "--no-totals"]
    told = CliRunner().invoke(app, line)
    assert told.exit_code == 1
    assert "no such image folder" in told.output and "/nowhere/vlm: no such folder" in told.output
    assert "tiny: 2 problems" in told.output and "do not submit it yet" in told.output
    facts = json.loads(CliRunner().invoke(app, [*line, "--json"]).output)
    assert facts["problems"] == 2 and not facts["ready"]
    draw(2)
    experiment()
    assert CliRunner().invoke(app, [*line, "--only", "models", "--only", "images"]).exit_code == 0
    assert "image: no such check (known: profile, images, " in str(
        CliRunner().invoke(app, [*line, "--only", "image"]).exception
    )


def judged(experiment: Make, **settings: Any) -> Preflight:
    """The experiment with TIIF-Bench by one judge."""
    tiif = {"benchmark": "tiif", "shapes": {"per_tag": 1, "seed": 1}, "images_per_prompt": 1}
    return experiment(
        image_sets={"tiif": tiif},
        judges={"models": {"one": {"model": "judge-1", **settings}}},
        benchmarks={"tiif": {"image_set": "tiif", "scorer": "tiif", "backend": "judge", "judge": "one"}},
        evaluate=[{"benchmark": "tiif"}],
    )


@pytest.mark.parametrize("kind, variable", [("openai", "OPENAI_API_KEY"), ("gemini", "GEMINI_API_KEY")])
def test_a_judge_without_its_key_is_found_before_any_image_is_made(experiment, monkeypatch, kind, variable):
    monkeypatch.delenv(variable, raising=False)
    preflight = judged(experiment, kind=kind)
    found = only(judge_keys(preflight))
    assert f"judges.models.one: judge judge-1: no key; set the environment variable {variable}" in found.what
    assert "rule judge) of tiif, after all images were made" in found.when
    assert not list(judges_answer(preflight))  # it is told once
    monkeypatch.setenv(variable, "two words")
    assert "holds spaces" in only(judge_keys(preflight)).what


@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_a_key_is_tried_by_a_call_that_costs_nothing_and_never_told(experiment, monkeypatch, kind):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(models=["judge-1"], key=KEY) as server:
        preflight = judged(experiment, kind=kind, endpoint=server.endpoint(kind), api_key_env="JUDGE_KEY")
        assert "takes the key and has judge-1" in only(judges_answer(preflight), "fine").what
        monkeypatch.setenv("JUDGE_KEY", "sk-wrong-0123456789")
        found = only(judges_answer(preflight))
        assert "the key in JUDGE_KEY is refused" in found.what and "rule judge" in found.when
        assert not any("0123456789" in part for part in (found.what, found.when, found.fix))
        assert len(server.listed) == 2 and not server.log  # no question was asked
        server.list_body = (403, '{"error": {"code": 403, "message": "Missing scopes: api.model.read"}}')
        assert "the list of models is refused: " in only(judges_answer(preflight), "unchecked").what
        server.list_body = (200, "null")
        assert only(judges_answer(preflight), "unchecked")
        server.list_body, server.key = None, ""
        monkeypatch.delenv("JUDGE_KEY")
        assert "answers without a key and has judge-1" in only(judges_answer(preflight), "fine").what
        server.models = None
        assert "lists no models" in only(judges_answer(preflight), "unchecked").what
    found = only(judges_answer(preflight))
    assert "connection refused: nobody listens at 127.0.0.1" in found.what


@pytest.mark.parametrize("kind", ["openai", "gemini"])
def test_a_key_does_not_follow_an_endpoint_that_sends_requests_elsewhere(experiment, monkeypatch, kind):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(models=["judge-1"]) as other, serving(models=["judge-1"], elsewhere=other.url) as server:
        preflight = judged(experiment, kind=kind, endpoint=server.endpoint(kind), api_key_env="JUDGE_KEY")
        found = only(judges_answer(preflight))
        assert "HTTP 307" in found.what and "correct the endpoint" in found.what
        with pytest.raises(JudgeError, match="HTTP 307: .* correct the endpoint"):
            load_judge(preflight.config.judges.models["one"]).ask(Payload("", "What is it?", (), None, 0.0))
        assert server.listed and server.log and not other.listed and not other.log


def test_what_the_hub_s_address_holds_of_a_person_is_not_told(monkeypatch):
    from huggingface_hub import constants

    with serving() as server:
        address = server.url.replace("//", "//user:T0K3N@")
        assert hub_access.unreachable(address) is None
    monkeypatch.setattr(constants, "ENDPOINT", address + "/gone")
    assert hub_access.shown(hub_access.endpoint()) == server.url + "/gone"
    assert "T0K3N" not in (hub_access.unreachable("http://user:T0K3N@a b:c") or "T0K3N")


def test_a_server_that_speaks_no_http_is_no_hub():
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=lambda: server.accept()[0].sendall(b"SSH-2.0\r\n"), daemon=True).start()
        assert "HTTP" in (hub_access.unreachable(f"http://127.0.0.1:{server.getsockname()[1]}") or "")


def test_a_model_that_the_endpoint_does_not_list_is_told(experiment, monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(models=["another"]) as server:
        preflight = judged(experiment, kind="openai", endpoint=server.endpoint("openai"), api_key_env="JUDGE_KEY")
        assert "does not list the model judge-1" in only(judges_answer(preflight), "warning").what


def test_calls_are_counted_before_there_is_an_image_and_held_against_the_limit(experiment):
    prices = {"usd_per_million_input_tokens": 1.0, "usd_per_million_output_tokens": 2.0}
    preflight = judged(experiment, kind="openai", endpoint="http://127.0.0.1:9/v1", max_calls=39, **prices)
    preflight.benchmarks["tiif"] = preflight.benchmarks["tiif"].model_copy(update={"limit": 10})
    (cost,) = judge_costs(preflight)
    # One call for each image of ten prompts in their two wordings (tests/workflow/test_judged.py), of the base model
    # and of the run.
    assert (cost.checkpoints, cost.calls, cost.unknown) == (2, 40, "")
    assert cost.input_tokens and cost.output_tokens == 40 * 2048
    assert cost.usd == pytest.approx((cost.input_tokens + 2 * cost.output_tokens) / 1e6, rel=0.01)
    found = only(budgets(preflight, Totals("", judges=[cost])))
    dear = preflight.config.judges.models["one"].model_copy(update={"max_calls": None, "budget_usd": 0.001})
    preflight.config.judges.models["one"] = dear
    assert "may cost up to" in only(budgets(preflight, Totals("", judges=[cost])), "warning").what
    assert "max_calls: 39, and the experiment asks 40 questions" in found.what and "in the middle of tiif" in found.when


def test_prompts_that_are_not_here_leave_the_calls_unknown(experiment):
    preflight = judged(experiment, kind="openai")
    file = {"tiif": {"benchmark": "tiif", "prompts": "data/benchmarks/tiif/testmini.jsonl", "images_per_prompt": 1}}
    sets = experiment(image_sets=file).config.image_sets
    other = preflight.config.model_copy(update={"image_sets": preflight.config.image_sets | {"tiif": sets["tiif"]}})
    (cost,) = judge_costs(Preflight(other, preflight.source, None, None, preflight.stages, preflight.benchmarks))
    assert cost.calls is None and "testmini.jsonl is not here yet; promptecho benchmarks fetch" in cost.unknown


def test_room_on_the_disk_is_compared_with_what_will_be_written(experiment):
    free = shutil.disk_usage(".").free
    preflight = experiment()
    assert only(room(preflight, Totals("", disk={"images": free / 2})), "fine")
    found = only(room(preflight, Totals("", disk={"images": free / 2, "train echo": 2.0 * free})))
    assert "the largest: train echo" in found.what and "keep: none" in found.fix


def test_folders_that_everybody_may_write_are_told(experiment):
    preflight = experiment()
    preflight.results.mkdir(parents=True)
    assert only(results_writable(preflight), "fine")
    preflight.results.chmod(0o777)
    assert "results/tiny: everybody may write" in only(results_writable(preflight), "warning").what
    preflight.results.chmod(0o1777)
    assert only(results_writable(preflight), "fine")


@pytest.mark.skipif(file_system(Path("/dev/shm")) != "tmpfs", reason="/dev/shm is no file system in memory here")
def test_results_in_the_memory_of_one_machine_are_found_before_the_first_submission(experiment, monkeypatch):
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        monkeypatch.chdir(folder)
        Path("profile").mkdir()
        Path("profile/config.yaml").write_text("executor: submitit\n")
        preflight = experiment(Path("profile"))
        found = only(shared_folders(preflight))
        assert "on tmpfs" in found.what and "results (results/tiny)" in found.what and "first jobs" in found.when
        assert not list(shared_folders(experiment()))  # on one machine nobody else has to see it


def test_the_kind_of_a_file_system_is_that_of_the_longest_mount_point(tmp_path):
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"35 22 0:31 / {tmp_path} rw shared:9 - nfs4 server:/export rw\n"
        f"36 22 0:32 / {str(tmp_path / 'a b').replace(' ', chr(92) + '040')} rw - lustre x rw\n"
    )
    assert file_system(tmp_path / "x", mounts) == "nfs4"
    assert file_system(tmp_path / "a b/c", mounts) == "lustre"
    assert file_system(Path(f"{tmp_path}-other"), mounts) == "ext4"


def test_a_clock_that_is_off_is_told(experiment, monkeypatch):
    assert only(clock(experiment()), "fine")
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + 60)
    assert "is 60 s behind this machine" in only(clock(experiment()), "warning").what


SINFO = """\
gpu*|up|1-00:00:00|2|64|512000|gpu:a100:4(S:0-1)
gpu*|up|1-00:00:00|1|64|512000|gpu:1g.5gb:7,nvme:1
cpu|down|infinite|8|32|128000|(null)
"""


def test_what_jobs_ask_is_compared_with_what_partitions_have():
    partitions = parse_partitions(SINFO)
    assert [one.gpus for one in partitions["gpu"].nodes] == [4, 7] and partitions["cpu"].nodes[0].gpus == 0
    assert partitions["gpu"].minutes == 1440 and partitions["cpu"].minutes is None

    def told(**changes: Any) -> list[str]:
        job = {"partition": "gpu", "nodes": 2, "gpus": 4, "cpus": 32, "mem_mb": 400_000, "minutes": 600} | changes
        return [what for what, _ in misfits(partitions, JobNeeds(**job))]

    assert told() == [] == told(partition=None) == told(partition="cpu,gpu")
    assert told(partition="long") == ["slurm_partition 'long' does not exist; there are: gpu, cpu"]
    assert told(minutes=2000) == ["runtime 2000 minutes: partition gpu allows 1440"]
    assert "partition gpu has 1 such nodes; its nodes: 2 with 64 CPUs" in told(gpus=7)[0]
    assert [line.partition(":")[0] for line in told(partition="cpu", gpus=0, mem_mb=0)] == [
        "partition cpu is down, not up"
    ]


def test_the_profile_says_where_jobs_go_and_what_it_wants_otherwise(experiment, monkeypatch, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/config.yaml").write_text(
        "executor: submitit\ndefault-resources:\n  slurm_partition: \"'gpu'\"\n  mem_mb: 4000\n"
        "set-resources:\n  train: {slurm_partition: long, nodes: 2, gpus_per_node: 8, tasks_per_node: 8, runtime: 90}\n"
        "  score: {gres: gpu:a100:1}\nset-threads: {train: 4}\n"
    )
    jobs = dict(jobs_of(experiment(tmp_path / "p")))
    assert jobs["train"] == JobNeeds("long", 2, 8, 32, 6000, 90)
    assert jobs["score"].gpus == 1 and jobs["score"].partition == "gpu"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no sinfo on this machine" in only(cluster(experiment(tmp_path / "p")), "unchecked").what


def written(folder: Path, text: str) -> WorkflowProfile:
    """A profile with such a file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(text)
    return read_profile(folder)


def test_values_mean_to_the_preflight_what_they_mean_to_snakemake(tmp_path):
    profile = written(
        tmp_path / "p",
        "executor: submitit\ndefault-resources: {slurm_account: 2024proj, constraint: a100|h100, mem: 4GB, "
        "qos: null, slurm_partition: \"'gpu'\"}\nset-resources:\n"
        "  train: {runtime: \"'3d'\", mem: 0.5 TB, nodes: 1 + 1}\n"
        "  judge: {runtime: 12h, gres: 'gpu:a100:1'}\n  score: {runtime: attempt * 60, mem_mb: 2 * input.size_mb}\n"
        "set-threads: {train: 2 * 4}\n",
    )
    assert profile.resources("none") == {
        "slurm_account": "2024proj", "constraint": "a100|h100", "mem_mb": 4000, "slurm_partition": "gpu",
    }  # fmt: skip
    assert profile.rules["train"] == {"runtime": 4320, "mem_mb": 500_000, "nodes": 2}
    assert profile.rules["judge"] == {"runtime": 720, "gres": "gpu:a100:1"}
    assert profile.rules["score"] == {"runtime": 60} and profile.threads == {"train": 8}
    assert list(profile.computed) == ["set-resources.score.mem_mb: 2 * input.size_mb"] and not profile.mistakes
    lists = "default-resources: [slurm_partition=gpu]\nset-resources: ['train:runtime=90']\nset-threads: [train=4]\n"
    profile = written(tmp_path / "p", lists)
    assert (profile.default, profile.rules) == ({"slurm_partition": "gpu"}, {"train": {"runtime": 90}})
    assert profile.threads == {"train": 4} and not profile.mistakes


def test_what_cannot_be_read_in_a_profile_is_named_with_the_fix(experiment, tmp_path):
    def told(text: str) -> tuple[str, str]:
        written(tmp_path / "p", text)
        found = only(profile_mistakes(experiment(tmp_path / "p")))
        assert str(tmp_path / "p/config.yaml") in found.what
        return found.what.partition("config.yaml: ")[2], found.fix

    assert told("default-resources: 5\n")[0].startswith("default-resources: '5' says nothing of a resource")
    what, fix = told("set-resources: {train: 3}\n")
    assert what.startswith("set-resources: {'train': 3}") and "train: {runtime: 60}" in fix
    what, fix = told("set-resources: {train: {mem_mb: 4GB}}\n")
    assert what.startswith("set-resources.train.mem_mb: 4GB: ") and "mem: 4GB" in fix
    assert "runtime: 12h" in told("set-resources: {train: {runtime: soon}}\n")[1]
    what, fix = told("default-resources: {slurm_partition: all}\n")  # a function of Python's
    assert what.startswith("default-resources.slurm_partition: all: ") and "\"'all'\"" in fix
    assert "another unit" in told("set-resources: {train: {mem: 4GB, mem_mb: 4000}}\n")[0]
    assert told("set-threads: {train: many}\n")[0].startswith("set-threads.train: many: ")
    assert told("executor: [submitit\n")[0].startswith("is no YAML")
    assert "names no method" in told("software-deployment-method: 5\n")[0]


def test_torch_that_is_missing_or_sees_no_gpu_is_a_finding_of_its_own(experiment, tmp_path, monkeypatch):
    written(tmp_path / "p", "executor: submitit\n")
    assert only(torch_build(experiment()), "fine")
    import torch

    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    real = {"t2i": {"path": "some/t2i"}}
    assert "processors alone" in only(torch_build(experiment(tmp_path / "p", models=real))).what
    assert only(torch_build(experiment(models=real)), "warning")
    # Where jobs have environments of their own, or an image, this one is not theirs.
    apart = replace(experiment(tmp_path / "p", models=real), envs=Path("built"))
    assert only(torch_build(apart), "unchecked").what == "torch: jobs use that of the environments in built"
    written(tmp_path / "image", "executor: submitit\nuse-singularity: true\n")
    assert only(torch_build(experiment(tmp_path / "image", models=real)), "unchecked")
    found_before = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found_before(name))
    found = only(torch_build(experiment()))
    assert found.what.startswith("torch is not installed in ") and "make setup" in found.fix


def test_prompts_with_control_tokens_are_found_before_training(experiment, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/config.yaml").write_text("executor: submitit\n")
    Path("prompts.txt").write_text("A red circle.\nA blue <|im_end|> square.\nA green star.\nTwo rings.\n")
    preflight = experiment(captions={"images": None, "prompts": "prompts.txt"})
    found = only(texts(preflight))
    assert "<|im_end|>" in found.what and "control token" in found.what and "rule captions" in found.when
    Path("prompts.txt").write_text("A red circle.\nA blue square.\nA green star.\nTwo rings.\n")
    stages = dict(jobs_of(experiment(tmp_path / "p", captions={"images": None, "prompts": "prompts.txt"})))
    assert "train" in stages and "caption" not in stages
    assert any("2 prompts to train on can be read" in one.what for one in texts(preflight))
    assert not Path("results").exists()


def test_the_totals_are_the_plan_s_and_the_bytes_are_those_of_a_checkpoint(experiment):
    draw(5)
    preflight = experiment(training={"iterations": 2, "checkpoints": [1, 2], "lora": {"rank": 2}})
    totals = make_totals(preflight, "h100")
    assert not totals.unknown and not totals.problems
    assert list(totals.gpu_hours) == ["captions", "train echo", "images geneval"]
    assert all(hours is not None and hours > 0 for hours in totals.gpu_hours.values())
    assert totals.disk["captions"] == 20_000
    # The demo's adapter, of rank 64, is a file of 5,456,464 bytes. Two checkpoints, and the state of a segment at work.
    assert totals.disk["train echo"] == pytest.approx(3 * 8 * 5_456_464 * 2 / 64, rel=0.02)


@pytest.mark.skipif(bool(detect()), reason="this machine has GPUs")
def test_real_models_on_a_machine_without_gpus_are_told(experiment, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/config.yaml").write_text("cores: all\n")
    assert only(local_gpus(experiment(tmp_path / "p")), "fine").what == "no stage takes a GPU"
    real = {"t2i": {"path": "some/t2i"}}
    found = only(local_gpus(experiment(tmp_path / "p", models=real)), "warning")
    assert "no NVIDIA GPU" in found.what and "rule train" in found.when
    assert "no profile is named" in only(local_gpus(experiment(models=real)), "unchecked").what


def test_a_node_s_report_is_read(experiment, tmp_path):
    sent = Probe(JobNeeds("gpu", 2, 2, 2, 8000, 10), "train", "training", tmp_path, "n")
    gpus = [{"name": "A", "free": 78e9, "total": 80e9}, {"name": "A", "free": 20e9, "total": 80e9}]
    sound = {
        "host": "n1", "nonce": "n", "packages": {"stage train": [[], []]}, "python": "/p", "python_version": "3.11",
        "time": 100.0, "written": 100.5, "file_system": "nfs4", "disk": "/tmp", "disk_kind": "xfs", "disk_free": 5e11,
        "gpus": gpus[:1] * 2, "cuda": "CUDA 12.8", "exchange": {"ranks": 4},
    }  # fmt: skip

    def told(**changes: Any) -> list[str]:
        found = of_node(experiment(), sent, sound | changes, "training")
        return [one.what for one in found if one.severity != "fine"]

    assert told() == []
    assert told(gpus=gpus) == ["partition gpu, node n1: GPU 1: 20.0 of 80.0 GB are free"]
    assert "2 GPU(s) asked for: torch sees no GPU" in told(gpus=[], cuda="torch sees no GPU")[0]
    assert "reads other content" in told(nonce="m")[0]
    assert "its clock is 30 s behind the file system's" in told(written=130.0)[0]
    assert "stage train: not installed in /p: x==1" in told(packages={"stage train": [["x==1"], []]})[0]
    assert "could not exchange: hung" in told(exchange={"error": "hung"})[0]
    wrong = {"ranks": 4, "backend": "nccl", "right": False, "gb_s": 1.0, "bus_gb_s": 1.5}
    assert "4 ranks add up to a wrong sum" in told(exchange=wrong)[0]


def test_official_prompts_that_nobody_can_fetch_are_found_before_any_image_is_made(experiment, monkeypatch, tmp_path):
    sets = {"tiif": {"benchmark": "tiif", "prompts": "data/benchmarks/tiif/testmini.jsonl", "images_per_prompt": 1}}
    tiif = {"image_set": "tiif", "scorer": "tiif", "backend": "judge", "judge": "one"}
    changes = {
        "image_sets": sets, "benchmarks": {"tiif": tiif}, "evaluate": [{"benchmark": "tiif"}],
        "judges": {"models": {"one": {"kind": "openai", "model": "m"}}},
    }  # fmt: skip
    preflight = experiment(**changes)
    with serving() as server:
        monkeypatch.setattr(prompt_files_module, "RAW", server.url)  # any answer will do
        assert "the workflow fetches them" in only(prompt_files(preflight), "fine").what
    monkeypatch.setattr(prompt_files_module, "RAW", f"{server.url}/gone")  # not the address that was asked before
    found = only(prompt_files(preflight))
    assert "image_sets.tiif.prompts: the official prompts of TIIF" in found.what and "does not answer" in found.what
    assert "rule official_prompts" in found.when and "promptecho benchmarks fetch tiif" in found.fix
    sets["tiif"]["prompts"] = "my/testmini.jsonl"
    assert "my/testmini.jsonl: no such file" in only(prompt_files(experiment(**changes))).what


SLURM = """#!/bin/sh
case $0 in
*/sbatch) echo 7;;
*/squeue) kill -TERM $PPID; echo 'PENDING|Priority';;
*/scancel) echo "$@" > cancelled;;
esac
"""


def test_a_probe_that_is_ended_from_outside_cancels_its_job_and_leaves_no_folder(experiment, tmp_path, monkeypatch):
    (tmp_path / "p").mkdir()
    (tmp_path / "p/config.yaml").write_text("executor: submitit\n")
    (tmp_path / "bin").mkdir()
    for name in ("sbatch", "squeue", "scancel"):  # a stand-in: the real one is tried in tests/slurm
        (tmp_path / "bin" / name).write_text(SLURM)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)  # other tests in this process may have left a handler
    try:
        with pytest.raises(SystemExit):
            list(probe(experiment(tmp_path / "p")))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)
    assert Path("cancelled").read_text().split() and not Path("results").exists()
