"""The preflight finds what stops an experiment, with the culprit, the job that it would strike, and the fix."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import yaml
from doctor_world import Make, draw, only, write_experiment
from hub_server import Hub
from judge_server import serving
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.doctor import prompt_files as prompt_files_module
from promptecho.doctor.cluster import jobs_of
from promptecho.doctor.diagnosis import run_checks
from promptecho.doctor.finding import Finding, problem
from promptecho.doctor.images import images_readable, images_there
from promptecho.doctor.models import models
from promptecho.doctor.places import clock
from promptecho.doctor.preflight import Preflight, make_preflight
from promptecho.doctor.prompt_files import prompt_files
from promptecho.doctor.texts import texts
from promptecho.doctor.totals import make_totals
from promptecho.models import hub_access
from promptecho.models.completeness import incompleteness
from promptecho.shipped import weights_of


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Make:
    """Writes the experiment to a folder in which the preflight then starts."""
    monkeypatch.chdir(tmp_path)
    return write_experiment


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


def test_an_adapter_that_a_run_begins_with_is_missed_by_training(experiment, tmp_path):
    adapters = {name: {"adapter": str(tmp_path / name)} for name in ("start", "compared")}
    preflight = experiment(runs=adapters | {"warm": {"init_adapter": "start"}}, evaluate=[])
    found = only(models(preflight))  # nobody takes the other one: no images are made
    assert found.what.startswith("runs.start.adapter: ") and "rule train" in found.when
    missed = [one for one in models(experiment(runs=adapters | {"warm": {"init_adapter": "start"}})) if one.fix]
    rules = {one.what.split(".adapter")[0]: one.when.split("(")[1] for one in missed}
    assert rules == {"runs.compared": "rule generate_shard)", "runs.start": "rule train)"}


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


def test_an_experiment_that_trains_nothing_has_totals_and_strikes_images_alone(experiment):
    experiment()
    file = Path("config/experiments/tiny.yaml")
    kept = {key: value for key, value in yaml.safe_load(file.read_text()).items() if key not in ("captions", "runs")}
    file.write_text(yaml.safe_dump(kept | {"evaluate": [{"benchmark": "geneval"}]}))
    totals = make_totals(make_preflight(file, None), "h100")
    assert list(totals.gpu_hours) == list(totals.disk) == ["images geneval"]
    assert totals.gpu_hours["images geneval"] and not totals.unknown and not totals.problems
    file.write_text(yaml.safe_dump(kept | {"models": {**kept["models"], "t2i": {"path": "models/nowhere"}}}))
    assert {one.when for one in texts(make_preflight(file, None)) if one.fix} == {"images (rule generate_shard)"}


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
