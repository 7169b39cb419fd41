"""Fetching models: pinned, checked, resumed, and found by jobs that may not ask the hub."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
import tiny_vlm
import yaml
from hub_server import Hub, folder_files
from typer.testing import CliRunner

from promptecho.cli import app
from promptecho.config import load_experiment, slice_digest, write_resolved
from promptecho.config.resolve import resolve
from promptecho.errors import ConfigError, ModelError
from promptecho.hub_record import RECORD, read_record
from promptecho.models import hub_access, locate
from promptecho.models.inventory import unavailable_models
from promptecho.models.required import required_models
from promptecho.models.selection import select_files
from promptecho.t2i.external import locate_adapter
from promptecho.vlm import load_vlm

VLM = "owner/tiny-vlm"
RUBBISH = {
    "pytorch_model.bin": b"pickle", "model.fp16.safetensors": b"half", "onnx/model.onnx": b"x",
    "consolidated.safetensors": b"x",
}  # fmt: skip
TOKEN = "hf_secretsecret"


@pytest.fixture(scope="module")
def repository() -> dict[str, bytes]:
    return {**folder_files(tiny_vlm.shared_folder()), "LICENSE": b"terms"}


@pytest.fixture
def hub(repository):
    with Hub({VLM: {**repository, **RUBBISH}}) as served:
        yield served


@pytest.fixture
def site(tmp_path):
    """A site whose one experiment, `one`, takes its VLM from the hub."""
    return Site(tmp_path)


class Site:
    def __init__(self, folder: Path):
        self.folder, self.root = folder, folder / "models"
        self.config = folder / "one.yaml"
        self.write()

    def write(self, revision: str | None = None, **sections) -> None:
        content = {
            "models": {"t2i": {"path": "shapes"}, "vlm": {"path": VLM, "revision": revision, "dtype": "float32"}},
            "captions": {"shapes": {"count": 4, "seed": 1}, "heldout": 0},
            "runs": {"r": {}},
            **sections,
        }
        self.config.write_text(yaml.safe_dump(content))

    def resolved(self, **keys) -> Path:
        """The configuration that the site's jobs get."""
        raw = {"experiments": ["one"], "experiments_dir": str(self.folder), "models_root": str(self.root), **keys}
        return write_resolved(resolve(raw)["one"], self.folder / "config")

    def fetch(self, hub: Hub, *more: str):
        arguments = ["models", "fetch", "--config", str(self.config), "--root", str(self.root), "--endpoint", hub.url]
        return CliRunner().invoke(app, [*arguments, *more], env={"HF_TOKEN": TOKEN})

    def call(self, name: str, *more: str):
        return CliRunner().invoke(app, ["models", name, "--config", str(self.config), "--root", str(self.root), *more])

    @property
    def model(self) -> Path:
        return self.root / VLM

    def names(self) -> set[str]:
        return set(folder_files(self.model)) if self.model.is_dir() else set()


def test_fetch_verify_and_repair(site, hub, repository):
    done = site.fetch(hub)
    assert done.exit_code == 0, done.output
    assert site.names() == {*repository, RECORD}
    record, commit = read_record(site.model), hub.commit(VLM)
    assert (record.hub_id, record.revision, record.commit) == (VLM, None, commit)
    assert {name: file.size for name, file in record.files.items()} == {k: len(v) for k, v in repository.items()}
    assert f"{VLM} is not pinned; write `revision: {commit}`" in done.stderr
    assert f"write `models_root: {site.root}` there" in done.stderr, "jobs would not find it"
    assert hub.tokens == {f"Bearer {TOKEN}"}
    texts = [done.output, done.stderr, *(path.read_text() for path in site.model.glob("*.json"))]
    assert not any(TOKEN in text for text in texts)

    hub.asked.clear()
    assert "there; commit" in site.fetch(hub).output
    site.write(revision=commit)
    again = site.fetch(hub, "--json")
    assert [model["status"] for model in json.loads(again.stdout)["models"]] == ["there"]
    assert "not pinned" not in again.stderr
    assert not hub.asked  # what is there needs no hub
    assert site.call("verify").exit_code == 0

    (site.model / "tokenizer.json").unlink()
    weights = site.model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    times = weights.stat()
    weights.write_bytes(content)
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))  # as a disk that forgets
    found = site.call("verify", "--json")
    assert found.exit_code == 1
    assert "model.safetensors (content)" in found.stdout and "tokenizer.json (missing)" in found.stdout
    hub.asked.clear()
    assert site.fetch(hub, "--full").exit_code == 0
    assert sorted(hub.downloads()) == ["model.safetensors", "tokenizer.json"]
    assert site.call("verify").exit_code == 0
    assert folder_files(site.model).keys() == {*repository, RECORD}
    assert weights.read_bytes() == repository["model.safetensors"]


def test_list_tells_what_is_where(site, hub):
    def listed() -> dict[str, tuple[str, bool]]:
        facts = json.loads(site.call("list", "--json").stdout)
        return {f"{model['source']} {model['kind']}": (model["where"], model["bytes"] is not None) for model in facts}

    shapes = {"shapes pipeline": ("shipped", True)}
    assert listed() == {**shapes, f"{VLM} transformers": ("missing", False)}
    assert site.fetch(hub).exit_code == 0
    assert listed() == {**shapes, f"{VLM} transformers": ("models_root", True)}
    assert f"commit {hub.commit(VLM)}" in site.call("list").output


def test_what_a_configuration_needs():
    root = Path(__file__).resolve().parent.parent.parent
    needed = {
        model.source: model for model in required_models(load_experiment(root / "config/experiments/zimage.yaml"))
    }
    assert needed["Tongyi-MAI/Z-Image"].kind == "pipeline"
    assert needed["Qwen/Qwen3-VL-8B-Instruct"].used_by == ("runs.promptecho-8b.reward_vlm",)
    assert {model.source for model in needed.values() if model.used_by == ("benchmarks.geneval",)} == {
        "facebook/mask2former-swin-small-coco-instance", "openai/clip-vit-large-patch14",
    }  # fmt: skip


def test_runs_judges_and_adapters_count_too(site):
    site.write(
        revision="a" * 40,
        runs={
            "r": {"reward_vlm": {"path": "owner/other"}},
            "s": {"reward_vlm": {"path": VLM, "revision": "a" * 40}},
            "authors": {"adapter": "owner/adapter", "revision": "v1"},
        },
        judges={
            "models": {"own": {"kind": "local", "model": "owner/judge"}, "far": {"kind": "openai", "model": "x/y"}}
        },
    )
    needed = {model.source: (model.kind, model.used_by) for model in required_models(load_experiment(site.config))}
    assert needed == {
        "shapes": ("pipeline", ("models.t2i",)),
        VLM: ("transformers", ("models.vlm", "runs.s.reward_vlm")),
        "owner/other": ("transformers", ("runs.r.reward_vlm",)),
        "owner/adapter": ("adapter", ("runs.authors",)),
        "owner/judge": ("transformers", ("judges.models.own",)),
    }
    site.write(revision="a" * 40, runs={"s": {"reward_vlm": {"path": VLM, "revision": "b" * 40}}})
    with pytest.raises(ConfigError, match="runs.s.reward_vlm.revision: b+, but models.vlm has owner/tiny-vlm at a+"):
        required_models(load_experiment(site.config))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_ended_in_the_middle_it_keeps_what_is_whole(site, hub, repository, number):
    hub.stall["model.safetensors"] = 1000
    command = [sys.executable, "-m", "promptecho", "models", "fetch", "--config", str(site.config), "--root",
               str(site.root), "--endpoint", hub.url]  # fmt: skip
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert hub.stalled.wait(60)
    temporary = site.model.with_name(f".{site.model.name}.fetch")
    small = [name for name in repository if name != "model.safetensors"]
    while not all((temporary / name).is_file() for name in small):
        assert process.poll() is None
    process.send_signal(number)
    _, stderr = process.communicate()
    if number == signal.SIGINT:
        assert process.returncode == 130 and "Traceback" not in stderr
        assert stderr.splitlines()[-1] == "promptecho: interrupted; the same command goes on"
    assert not site.model.exists()  # nothing half has the name that jobs look for
    hub.stall.clear()
    hub.asked.clear()
    assert site.fetch(hub).exit_code == 0
    assert hub.downloads() == ["model.safetensors"]
    assert site.names() == {*repository, RECORD} and not temporary.exists()


def test_a_connection_that_is_cut_is_tried_again(site, hub):
    hub.cut["model.safetensors"] = len(hub.repositories[VLM]["model.safetensors"]) // 2
    result = site.fetch(hub)
    assert result.exit_code == 0, result.output
    assert hub.downloads().count("model.safetensors") == 2


def test_what_the_hub_did_not_describe_is_not_taken(site, hub, repository):
    wrong = bytearray(repository["model.safetensors"])
    wrong[-1] ^= 1
    hub.served["model.safetensors"] = bytes(wrong)
    result = site.fetch(hub)
    assert isinstance(result.exception, ModelError)
    assert f"{VLM}: model.safetensors: not what the hub describes" in str(result.exception)
    assert not site.model.exists()
    hub.served.clear()
    assert site.fetch(hub).exit_code == 0


@pytest.mark.parametrize(
    ("repositories", "revision", "gated", "message"),
    [
        ({}, None, False, f"{VLM}: the hub has no such model"),
        ({VLM: {"config.json": b"{}", "model.safetensors": b"x"}}, "c" * 40, False, f"{VLM}: has no revision c+"),
        ({VLM: {"config.json": b"{}", "pytorch_model.bin": b"x"}}, None, False, "pytorch_model.bin is a pickle"),
        ({VLM: {"config.json": b"{}"}}, None, False, f"{VLM}: no safetensors in it"),
        ({VLM: {"config.json": b"{}", "model.safetensors": b"x"}}, None, True, "accept their terms .* set HF_TOKEN"),
    ],
)
def test_what_cannot_be_had_is_told(site, repositories, revision, gated, message):
    site.write(revision=revision)
    with Hub(repositories) as hub:
        hub.gated = {VLM} if gated else set()
        result = site.fetch(hub)
    with pytest.raises(ModelError, match=message) as caught:
        raise result.exception
    assert "\n" not in str(caught.value) and TOKEN not in str(caught.value)


def test_a_folder_that_somebody_put_there_is_recorded_or_left_alone(site, hub, repository):
    for name, content in repository.items():
        (site.model / name).parent.mkdir(parents=True, exist_ok=True)
        (site.model / name).write_bytes(content)
    (site.model / "notes.txt").write_text("mine")
    assert site.fetch(hub).exit_code == 0
    assert hub.downloads() == [] and site.names() == {*repository, RECORD, "notes.txt"}
    (site.model / RECORD).unlink()
    (site.model / "config.json").write_bytes(b"{}")
    assert "config.json is not the hub's" in str(site.fetch(hub).exception)
    assert (site.model / "config.json").read_bytes() == b"{}"


def test_another_revision_is_refused_by_jobs_and_fetched_anew(site, hub, repository):
    assert site.fetch(hub).exit_code == 0
    old = hub.commit(VLM)
    hub.repositories[VLM] = {**repository, "LICENSE": b"other terms"}
    new = hub.commit(VLM)
    site.write(revision=new)
    with pytest.raises(ConfigError, match=rf"models.vlm.revision: .* asks for {new}, but .* holds commit {old}"):
        site.resolved()
    hub.asked.clear()
    assert site.fetch(hub).exit_code == 0
    assert hub.downloads() == ["LICENSE"]
    assert load_experiment(site.resolved()).models.vlm.path == str(site.model)


@pytest.fixture
def job(monkeypatch):
    """Lets this process be a job with a configuration, for one test."""
    monkeypatch.setattr(locate, "_access", locate.ModelAccess())
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    hub_access.unreachable.cache_clear()
    yield locate.job_config
    hub_access.unreachable.cache_clear()


def test_jobs_do_not_ask_the_hub(site, hub, job):
    job(site.resolved())
    assert os.environ["HF_HUB_OFFLINE"] == "1" and huggingface_hub.is_offline_mode()
    said = rf"^{VLM} .models.vlm.path.: neither in {site.root} nor in .* promptecho models fetch --config"
    with pytest.raises(ModelError, match=said):
        load_vlm(VLM)
    with pytest.raises(ModelError, match="promptecho models fetch"):
        locate_adapter(VLM, endpoint=hub.url)
    assert not hub.asked


@pytest.fixture(params=["never answers", "refuses", "unknown name"])
def silent(request, monkeypatch):
    """The URL of a hub that cannot be reached."""
    with socket.create_server(("127.0.0.1", 0), backlog=8) as server:  # never accepts
        port = server.getsockname()[1]
        if request.param == "refuses":
            server.close()
        url = "http://hub.invalid" if request.param == "unknown name" else f"http://127.0.0.1:{port}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", url)
        yield url


def test_a_hub_that_does_not_answer_is_said_at_once_and_once(site, job, silent):
    sections = {"judges": {"models": {"judge": {"kind": "local", "model": "owner/judge"}}}}
    site.write(**sections)
    job(site.resolved(models={"offline": False}))
    said = rf"^{VLM} \(models.vlm.path\): neither in .* and the hub \({silent}\) does not answer \(.+\); where there"
    with pytest.raises(ModelError, match=said):
        load_vlm(VLM)
    # The client itself would have asked for each file, again and again.
    with pytest.raises(ModelError, match=r"owner/judge \(judges.models.judge.model\): neither in"):
        locate.locate_model("owner/judge")
    found = unavailable_models(load_experiment(site.resolved(models={"offline": False})), {"models.vlm", "models.t2i"})
    assert len(found) == 1 and found[0].startswith(f"one: models.vlm.path: {VLM}: neither in")
    call = ["models", "fetch", "--config", str(site.config), "--root", str(site.root), "--endpoint", silent]
    result = CliRunner().invoke(app, call)
    lines = str(result.exception).splitlines()
    assert len(lines) == 1 and lines[0].startswith(f"{VLM}, owner/judge: the hub ({silent}) does not answer"), lines
    assert hub_access.unreachable.cache_info().currsize == 1


def test_a_hub_that_answers_is_asked(site, hub, job, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    job(site.resolved(models={"offline": False}))
    assert locate.locate_model(VLM) == VLM and (hub.probed, hub.asked) == (1, [])
    assert unavailable_models(load_experiment(site.resolved(models={"offline": False})), {"models.vlm"}) == []
    offline = load_experiment(site.resolved())
    assert unavailable_models(offline, {"models.t2i"}) == []
    assert "jobs do not ask the hub (models.offline)" in unavailable_models(offline, {"models.vlm"})[0]
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE is set; where there is internet: promptecho models fetch"):
        locate.locate_model(VLM)


def test_jobs_load_what_was_fetched_with_the_hub_gone(site, hub, job, tmp_path):
    assert site.fetch(hub).exit_code == 0
    hub.close()
    tiny_vlm.image(1).save(tmp_path / "image.png")
    staging = tmp_path / "disk"
    config = site.resolved(models={"staging": str(staging)})
    command = [sys.executable, "-m", "promptecho", "reward", "--config", str(config), "--image",
               str(tmp_path / "image.png"), "--label", "a red circle", "--json"]  # fmt: skip
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert isinstance(json.loads(done.stdout)[0]["reward"], float)
    assert [path.name for path in staging.glob("*/tiny-vlm-*/model.safetensors")] == ["model.safetensors"]
    job(config)  # a local judge or detector is named by its hub id, and found all the same
    assert locate.locate_model(VLM) == str(site.model) and locate.stage_model(VLM).startswith(str(staging))
    assert locate.staging_seconds() > 0


def test_moving_or_staging_models_reruns_nothing(site, hub):
    assert site.fetch(hub).exit_code == 0
    plain = load_experiment(site.config)
    assert not plain.models_offline
    configs = [plain]
    for keys in ({}, {"models": {"offline": False}}, {"models": {"staging": "/local"}}):
        configs.append(load_experiment(site.resolved(**keys)))
    assert [config.models_offline for config in configs] == [False, True, False, True]
    for stage, names in (("caption", {}), ("merge", {}), ("train", {"run": "r"})):
        assert len({slice_digest(config, stage, **names) for config in configs}) == 1
    assert required_models(configs[-1])[1].source == VLM  # by its hub id, wherever it lies
    site.config.write_text(site.config.read_text() + "models_offline: true\n")
    with pytest.raises(ConfigError, match="models_offline: is not written in an experiment file"):
        site.resolved()


def test_files_of_a_pipeline():
    parts = ["scheduler", "tokenizer", "transformer", "vae"]
    names = [
        "model_index.json", "README.md", "all_in_one.safetensors", "scheduler/scheduler_config.json",
        "tokenizer/tokenizer.json", "tokenizer/vocab.json", "transformer/config.json", "vae/config.json",
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors", "assets/picture.png",
        "transformer/diffusion_pytorch_model.safetensors.index.json", "vae/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.bin", "other/config.json",
    ]  # fmt: skip
    chosen = select_files("a/b", names, "pipeline", components=parts)
    left = {"all_in_one.safetensors", "assets/picture.png", "vae/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.bin", "other/config.json"}  # fmt: skip
    assert set(names) - set(chosen) == left
    with pytest.raises(ModelError, match="vae/diffusion_pytorch_model.bin is a pickle"):
        names.remove("vae/diffusion_pytorch_model.safetensors")
        select_files("a/b", names, "pipeline", components=parts)
    for evil in ("../x.json", "/etc/x.json", "a/../../x.json"):
        with pytest.raises(ModelError, match="outside"):
            select_files("a/b", [evil], "transformers")
    with_code = select_files("a/b", ["config.json", "model.safetensors", "modeling.py"], "transformers", code=True)
    assert "modeling.py" in with_code
