"""A judge in this process, and the same kind of model behind `transformers serve`."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import tiny_vlm
from judge_cases import png, section, write_png

from promptecho.judges.ask import ask_all
from promptecho.judges.base import Payload, Question
from promptecho.judges.errors import JudgeError
from promptecho.judges.registry import load_judge

IMAGES = tuple(("image/png", png(index)) for index in (1, 2))


def local(**values):
    return section("local", model=str(tiny_vlm.shared_folder()), dtype="float32", max_output_tokens=12, **values)


def payload(**values) -> Payload:
    return Payload(**({"system": "", "text": "Which?", "images": IMAGES, "schema": None, "temperature": 0.0} | values))


@pytest.fixture(scope="module")
def judge():
    return load_judge(local())


def test_images_system_and_text_all_count(judge):
    replies = {
        "both": judge.ask(payload()),
        "one": judge.ask(payload(images=IMAGES[:1])),
        "none": judge.ask(payload(images=())),
        "system": judge.ask(payload(system="two lines")),
    }
    assert len({reply.input_tokens for reply in replies.values()}) == 4
    assert judge.ask(payload()) == replies["both"]
    assert replies["both"].text != judge.ask(payload(text="three green triangles")).text
    assert replies["both"].model_version.startswith("files-") and 0 < replies["both"].output_tokens <= 12


def test_one_image_is_asked_as_captions_are(judge):
    from promptecho.captions.captioner import GenerationSettings, caption_images
    from promptecho.images import load_image

    settings = GenerationSettings(max_new_tokens=12)
    image = load_image(io.BytesIO(IMAGES[0][1]))
    [caption] = caption_images(judge._vlm, [image], ["a"], "Which?", settings)
    assert judge.ask(payload(images=IMAGES[:1])).text == caption.text


def test_sampled_replies_are_those_of_their_seed(judge):
    texts = [judge.ask(payload(temperature=1.0, seed=seed)).text for seed in (1, 2, 1)]
    assert texts[0] == texts[2] != texts[1]


def test_too_long_is_one_line(judge):
    with pytest.raises(JudgeError, match="exceed its context .* the judge's key is max_output_tokens"):
        load_judge(local().model_copy(update={"max_output_tokens": 5000})).ask(payload())


def test_answers_are_recorded_and_a_greedy_model_is_not_asked_twice(tmp_path):
    def refuse(text):
        raise ValueError("never good")

    images = (write_png(tmp_path, 1), write_png(tmp_path, 2))
    asked = [Question("a", "Which?", images, str), Question("b", "Which one?", images, refuse)]
    settings = local(max_failed_share=0.5, concurrency=4)
    first = ask_all(settings, asked, tmp_path / "a")
    assert first[0].value and first[1].failure.split(":")[0] in ("unparsable", "cut") and first[1].attempts == 1
    again = ask_all(settings, asked, tmp_path / "a")
    assert all(answer.cached for answer in again) and again[0].text == first[0].text
    other = tiny_vlm.build(tmp_path / "other", seed=1)
    [answer] = ask_all(settings.model_copy(update={"model": str(other)}), asked[:1], tmp_path / "a")
    assert not answer.cached, "other weights are another judge"


# Without torchvision the library's own AutoProcessor does not load this family; the project's processor is the same
# class without its video part. Everything else is the server as it is.
SERVE = """
import sys
import transformers
from promptecho.vlm.processor import load_processor
transformers.AutoProcessor.from_pretrained = (
    lambda path, *, revision=None, trust_remote_code=False, **_: load_processor(path)
)
from transformers.cli.serve import Serve
Serve(force_model=sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]), device="cpu")
"""


@pytest.fixture(scope="module")
def served():
    """The embedded VLM behind `transformers serve`; yields (endpoint, model)."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package)
    from promptecho.shipped import model_path

    folder = model_path("shapes", "vlm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, folder, str(port)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, process.stdout.read()
            try:
                urllib.request.urlopen(f"{url}/health", timeout=1)
                break
            except OSError:
                time.sleep(0.2)
        yield f"{url}/v1", folder
    finally:
        process.kill()
        process.communicate()


def test_transformers_serve_answers_as_the_model_in_this_process(served, tmp_path, monkeypatch):
    from promptecho.shapes.tokenizer import QUERY

    endpoint, model = served
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    images = [write_png(tmp_path, index) for index in range(3)]
    asked = [Question(f"image {index}", QUERY, (path,), str) for index, path in enumerate(images)]
    common = dict(max_output_tokens=24, temperature=0.0)
    remote = ask_all(
        section("openai", model=model, endpoint=endpoint, structured_output="none", **common), asked, tmp_path / "a"
    )
    here = ask_all(section("local", model="shapes", dtype="float32", **common), asked, tmp_path / "a")
    assert [answer.text for answer in remote] == [answer.text for answer in here]
    assert all(answer.value for answer in remote) and not any(answer.cached for answer in here)
