"""What `promptecho publish` writes: one adapter in three formats, a card that follows the scores, and the upload."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import adapter_worlds
import huggingface_hub
import numpy as np
import pytest
import tables_world
import torch
import yaml
from hub_server import folder_files
from PIL import Image
from typer.testing import CliRunner
from upload_hub import UploadHub

from promptecho.cli import app
from promptecho.config.families import family_named
from promptecho.config.training_parts import LoraSection
from promptecho.errors import PromptEchoError
from promptecho.files import read_json, read_jsonl, write_jsonl
from promptecho.hub_record import HubRecord, write_record
from promptecho.publish.card import hub_id_of
from promptecho.publish.folder import published_config
from promptecho.publish.upload import check_upload, upload
from promptecho.scores import read_scores, write_scores
from promptecho.t2i.lora import add_lora, save_adapter, trained_parameters

CONFIG = Path(__file__).resolve().parents[2] / "config/experiments/shapes.yaml"
RUN, STEP = "promptecho-s1", 30
TOKEN = "hf_neverToBeSeenAnywhere"
PROMPT = "a | pipe, <b>tag</b> & *stars*"


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """results/shapes with an adapter, GenEval's scores of two checkpoints and the base model, and images."""
    root = tmp_path_factory.mktemp("publish")
    results = root / "shapes"
    for run, step, chance in (("base", 0, 0.4), (RUN, 15, 0.5), (RUN, STEP, 0.7)):
        tables_world.geneval(root, run, step, chance, prompts=3, experiment="shapes")
        ids = sorted({item.prompt_id for item in read_scores(results / f"scores/geneval/{run}/{step}.json").items})
        folder = results / f"images/{run}/{step}/geneval"
        rows = [
            {"prompt_id": one, "image_index": 0, "prompt": f"{PROMPT} {one}", "filename": f"{n}.png", "sha256": ""}
            for n, one in enumerate(ids)
        ]
        write_jsonl(folder / "shards/0.jsonl", rows)
        for n in range(len(ids)):
            pixels = np.random.default_rng([n, step]).integers(0, 255, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{n}.png")
    family = family_named("zimage")
    torch.manual_seed(0)
    model = add_lora(
        adapter_worlds.transformer("zimage"), LoraSection(rank=4, alpha=8), 1, {"all": family.lora_targets}
    )
    weights = {name: torch.randn(p.shape) for name, p in trained_parameters(model).items()}
    save_adapter(model, weights, results / f"runs/{RUN}/{STEP}/adapter", family)
    return results


@pytest.fixture
def results(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "shapes")


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    if isinstance(result.exception, PromptEchoError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def publish(results: Path, out: str = "out", *words: object) -> Path:
    folder = results.parent / out
    run("publish", results, "--run", RUN, "--license", "mit", "--config", CONFIG, "--out", folder, *words)
    return folder


def table(results: Path) -> list[str]:
    """The rows of GenEval's table of base model and last checkpoint, as `promptecho tables` writes them."""
    run("tables", "--table", "geneval", "--scores", results, "--out", results / "tables")
    text = (results / "tables/geneval.md").read_text()
    return [line for line in text.splitlines() if line.startswith(("| base |", f"| {RUN} @ {STEP} |"))]


def metadata(folder: Path) -> dict:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


def test_a_model_that_was_trained_whole_is_published_as_one(results, tmp_path):
    config = tmp_path / "shapes.yaml"
    config.write_text(CONFIG.read_text().replace("  iterations: 20", "  finetuning: full\n  iterations: 20"))
    adapter, out = results / f"runs/{RUN}/{STEP}/adapter", tmp_path / "out"
    shutil.rmtree(adapter)
    adapter.mkdir()
    (adapter / "config.json").write_text("{}")
    (adapter / "diffusion_pytorch_model.safetensors").write_bytes(b"weights")
    run(
        "publish", results, "--run", RUN, "--license", "mit", "--config", config, "--out", out, "--base-model", "own/it"
    )
    assert (out / "diffusion_pytorch_model.safetensors").read_bytes() == b"weights" and not list(out.glob("*lora*"))
    assert (metadata(out)["base_model_relation"], "lora" in metadata(out)["tags"]) == ("finetune", False)
    card = (out / "README.md").read_text()
    assert "ZImageTransformer2DModel.from_pretrained(" in card and "transformer=transformer" in card
    assert "LoRA" not in card and "PEFT" not in card and "all weights of the transformer" in card


def test_the_folder_has_the_adapter_for_three_readers_and_a_card(results):
    folder = publish(results, "out", "--base-model", "owner/base", "--images", "3")
    names = {
        "README.md",
        "experiment.json",
        "evaluation/geneval.json",
        "adapter_config.json",
        "comfyui_lora.safetensors",
    }
    names |= {"adapter_model.safetensors", "pytorch_lora_weights.safetensors"}
    names |= {f"images/{n:02}{side}.png" for n in range(3) for side in ("", "-base")}
    assert set(folder_files(folder)) == names
    read = adapter_worlds.through_peft("zimage", folder)
    other = adapter_worlds.through_diffusers("zimage", folder / "pytorch_lora_weights.safetensors")
    adapter_worlds.assert_same(other, read, "diffusers")
    comfyui = adapter_worlds.through_comfyui("zimage", folder / "comfyui_lora.safetensors")
    adapter_worlds.assert_same(comfyui, adapter_worlds.in_comfyui("zimage", read), "ComfyUI's keys")
    told = metadata(folder)
    assert (told["license"], told["base_model"], told["base_model_relation"]) == ("mit", "owner/base", "adapter")
    assert told["widget"][0]["text"].startswith(PROMPT) and told["widget"][0]["output"]["url"] == "images/00.png"
    card = (folder / "README.md").read_text()
    text = re.sub(r"```.*?```", "", card.split("---\n", 2)[2], flags=re.DOTALL)
    assert r"a \| pipe, \<b\>tag\</b\> \& \*stars\*" in text and "<b>" not in text and "rank 4, alpha 8" in text
    assert 'from_pretrained("owner/base"' in card and f"results/shapes/runs/{RUN}/{STEP}/adapter" in card
    # An older checkpoint has no file for ComfyUI: it gets the same one.
    (results / f"runs/{RUN}/{STEP}/adapter/comfyui_lora.safetensors").unlink()
    assert folder_files(publish(results, "again", "--base-model", "owner/base", "--images", "3")) == folder_files(
        folder
    )


def test_card_and_table_change_together(results):
    before = table(results)
    folder = publish(results)
    card = (folder / "README.md").read_text().splitlines()
    assert len(before) == 2 and all(line in card for line in before)
    value = metadata(folder)["model-index"][0]["results"][0]["metrics"][0]
    path = results / f"scores/geneval/{RUN}/{STEP}.json"
    scores = read_scores(path)
    wrong = next(n for n, item in enumerate(scores.items) if item.outcome == 1.0)
    scores.items[wrong] = scores.items[wrong].model_copy(update={"outcome": 0.0})
    means = {}
    for item in scores.items:
        means.setdefault(item.group, []).append(item.outcome)
    overall = float(np.mean([np.mean(values) for values in means.values()]))
    write_scores(path, scores.model_copy(update={"summary": {**scores.summary, "overall": overall}}))
    with pytest.raises(PromptEchoError, match=r"tables/geneval.json: shows other numbers than the scores give now"):
        publish(results, "stale")
    assert not (results.parent / "stale").exists()
    after = table(results)
    folder = publish(results, "fresh")
    card = (folder / "README.md").read_text().splitlines()
    assert after[0] == before[0] and after[1] != before[1]
    assert all(line in card for line in after) and before[1] not in card
    assert metadata(folder)["model-index"][0]["results"][0]["metrics"][0]["value"] < value["value"]


def test_nothing_is_overwritten_and_nothing_is_half_there(results):
    (results.parent / "there").mkdir()
    with pytest.raises(PromptEchoError, match="there: exists already; nothing is overwritten"):
        publish(results, "there")
    (results / f"images/{RUN}/{STEP}/geneval/0.png").write_bytes(b"no image")
    before = sorted(path.name for path in results.parent.iterdir())
    with pytest.raises(PromptEchoError, match=r"0.png: not a readable image"):
        publish(results, "out", "--images", "18")
    assert sorted(path.name for path in results.parent.iterdir()) == before
    with pytest.raises(PromptEchoError, match=rf"runs/{RUN}/15/adapter: adapter_config.json is missing"):
        publish(results, "out", "--step", "15")
    with pytest.raises(PromptEchoError, match="no checkpoint N/adapter in it"):
        run("publish", results, "--run", "other", "--license", "mit", "--config", CONFIG, "--out", results.parent / "o")


def test_what_belongs_to_a_site_is_left_out():
    from promptecho.config import load_experiment

    config = load_experiment(CONFIG, {"models": {"t2i": {"path": "/secret/place/z-image"}}})
    text = str(published_config(config.model_copy(update={"models_root": "/secret"}), RUN))
    assert "secret" not in text and "z-image" in text
    made = config.model_copy(update={"image_sets": {"a": config.image_sets["geneval"].model_copy(
        update={"prompts": "data/secret/prompts.txt"})}})  # fmt: skip
    assert published_config(made, RUN)["image_sets"]["a"]["prompts"] == "prompts.txt"


def test_only_a_model_fetched_from_the_hub_is_named_by_its_id(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    assert hub_id_of("models/qwen-image") is None  # a folder of another machine, for all we know
    assert hub_id_of("models/qwen-image", "Qwen/Qwen-Image") == "Qwen/Qwen-Image"
    (tmp_path / "cache/models--Qwen--Qwen-Image/snapshots/c0ffee").mkdir(parents=True)
    assert hub_id_of("Qwen/Qwen-Image") == "Qwen/Qwen-Image"
    folder = tmp_path / "root/Tongyi-MAI/Z-Image"
    folder.mkdir(parents=True)
    assert hub_id_of("Tongyi-MAI/Z-Image", root=str(tmp_path / "root")) is None  # copied by hand
    record = HubRecord(hub_id="Tongyi-MAI/Z-Image", revision=None, commit="c0ffee1", endpoint="e", files={})
    write_record(folder, record)
    assert hub_id_of("Tongyi-MAI/Z-Image", root=str(tmp_path / "root")) == "Tongyi-MAI/Z-Image"


def test_a_card_without_the_base_models_scores_says_so(results):
    (results / "scores/geneval/base/0.json").unlink()
    card = (publish(results, "out", "--hub-name", "me/mine") / "README.md").read_text()
    assert "Base model and this checkpoint" not in card and "\nThis checkpoint.\nThe numbers" in card
    assert 'load_lora_weights("me/mine"' in card and 'from_pretrained("THE_BASE_MODEL"' in card
    assert "base_model" not in metadata(results.parent / "out")


def test_upload_sends_all_in_one_commit_and_never_shows_the_token(results, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(PromptEchoError, match="HF_TOKEN is not set"):
        publish(results, "out", "--upload", "me/mine")
    assert not (results.parent / "out").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with UploadHub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)  # the server has the LFS protocol
        folder = publish(results, "out", "--upload", "me/mine", "--private", "--images", "2")
        sent = hub.repositories["me/mine"]
        assert {name: content for name, content in sent.items() if name != ".gitattributes"} == folder_files(folder)
        assert hub.commits == 1 and hub.private["me/mine"] and hub.tokens - {""} == {f"Bearer {TOKEN}"}
        assert b'load_lora_weights("me/mine"' in sent["README.md"]
        assert not any(TOKEN.encode() in content for content in sent.values())
        with pytest.raises(PromptEchoError, match=r"me/mine: has files on the hub already, such as README.md"):
            publish(results, "second", "--upload", "me/mine", "--images", "2")
        hub.refuse = ("/commit/", 403, f"this token may not write: {TOKEN}")
        with pytest.raises(PromptEchoError, match="the hub did not take it") as error:
            publish(results, "third", "--upload", "me/other", "--images", "2")
        assert TOKEN not in str(error.value) and f"hf upload me/other {results.parent / 'third'}" in str(error.value)
        assert hub.commits == 1 and (results.parent / "third/README.md").is_file()
    assert read_jsonl(results / f"images/{RUN}/{STEP}/geneval/shards/0.jsonl") and read_json(folder / "experiment.json")


def test_a_token_from_a_file_loses_its_line_end_and_a_broken_one_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", f"{TOKEN}\nand more")
    with pytest.raises(PromptEchoError, match="HF_TOKEN has a space, a control character") as error:
        check_upload("me/mine")
    assert TOKEN not in str(error.value)
    (tmp_path / "README.md").write_text("# A card\n")
    monkeypatch.setenv("HF_TOKEN", f" {TOKEN}\r\n")
    with UploadHub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        upload(tmp_path, "me/mine")
        assert hub.commits == 1 and hub.tokens - {""} == {f"Bearer {TOKEN}"}


def test_nothing_private_goes_into_a_public_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (tmp_path / "README.md").write_text("# A card\n")
    with UploadHub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        hub.repositories["me/mine"], hub.private["me/mine"] = {}, False
        with pytest.raises(PromptEchoError, match="me/mine: is there on the hub already and is not private"):
            upload(tmp_path, "me/mine", private=True)
        assert hub.commits == 0 and not hub.repositories["me/mine"]
