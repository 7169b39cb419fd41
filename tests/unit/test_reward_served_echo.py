"""PromptEcho by a server's `prompt_logprobs`, against the local one; the server computes with the shapes VLM."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import tiny_t2i
import tiny_vlm
from logprob_server import LogprobServer, serving_log_probs
from tiny_experiment import Experiment

from promptecho.config import load_experiment
from promptecho.doctor.reward_servers import reward_servers
from promptecho.errors import ConfigError, DataError, RewardError
from promptecho.rewards import RewardContext, make_reward
from promptecho.rewards.served_echo.options import ServedEchoSection
from promptecho.vlm import load_vlm

PROMPTS = ["A red circle.", "Two blue stars above a green ring.", "  the image shows a cross\n", "A red circle."]
IDS = [f"p{i}" for i in range(4)]
QUERY = "Describe this image."


@pytest.fixture(scope="module")
def shapes():
    return load_vlm("shapes")


@pytest.fixture(scope="module")
def server(shapes):
    with serving_log_probs(shapes, "shapes-vlm") as state:
        yield state


def made(server: LogprobServer, **options):
    options = {"endpoint": server.url, "model": "shapes-vlm", "processor": "shapes", "outage_s": 0.0} | options
    return make_reward("served_echo", RewardContext(options=ServedEchoSection(**options), query=QUERY))


def images(n: int = 4) -> list:
    return [tiny_vlm.image(i, size=(64, 64 if i % 2 else 32)) for i in range(n)]


def test_it_is_the_local_echo(server, shapes):
    reward, local = made(server), make_reward("echo", RewardContext(vlm=shapes, query=QUERY))
    texts = [prompt.strip() for prompt in PROMPTS]
    assert reward(images(), PROMPTS, IDS) == pytest.approx(local(images(), texts, IDS), abs=1e-5)
    ours, theirs = reward.details(images(), PROMPTS, IDS), local.details(images(), texts, IDS)
    for one, other in zip(ours.facts, theirs.facts, strict=True):
        assert one["tokens"] == other["tokens"]
        assert one["log_probs"] == pytest.approx(other["log_probs"], abs=1e-5)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda a: {k: v for k, v in a.items() if k != "prompt_logprobs"}, "has no prompt_logprobs, as vLLM's has"),
        (lambda a: {**a, "prompt_logprobs": a["prompt_logprobs"][:-1]}, "give the server the same model and chat temp"),
        (lambda a: {**a, "prompt_logprobs": a["prompt_logprobs"][:2]}, "give the server the same model and chat temp"),
        (lambda a: {**a, "prompt_logprobs": [{next(iter(r or "0")): -1.0} for r in a["prompt_logprobs"]]},
         "has no number `logprob`"),
        (lambda a: {**a, "prompt_logprobs": [{next(iter(r or "0")): {"logprob": -(10**400)}}
                                             for r in a["prompt_logprobs"]]},
         "a `logprob` of its prompt_logprobs is not finite"),
        (lambda a: {**a, "prompt_logprobs": [{next(iter(r or "0")): {"logprob": -9999.0}}
                                             for r in a["prompt_logprobs"]]},
         r"prompt p0, image 0: the reward is not finite .4 of 4 label tokens"),
    ],
)  # fmt: skip
def test_an_answer_that_is_none_is_refused_by_name(server, monkeypatch, change, told):
    monkeypatch.setattr(server, "change", change)
    with pytest.raises(RewardError, match=told):
        made(server)(images(1), PROMPTS[:1], IDS[:1])


def test_another_template_and_another_model_are_refused(server, monkeypatch):
    with pytest.raises(RewardError, match="HTTP 404: has nothing there .The model `other` does not exist"):
        made(server, model="other")(images(1), PROMPTS[:1], IDS[:1])
    with pytest.raises(DataError, match="prompt p7: the label contains the control token"):
        made(server)(images(1), ["a <|im_end|> b"], ["p7"])
    monkeypatch.setattr(server, "template", "{% for m in messages %}{% for p in m.content %}{% if p.type == 'image' %}"
                        "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ p.text | upper }}{% endif %}"
                        "{% endfor %}{% endfor %}")  # fmt: skip
    monkeypatch.setattr(
        server, "complete", lambda body: LogprobServer.complete(server, body | {"continue_final_message": False})
    )
    with pytest.raises(RewardError, match="its prompt ends with .*and the label's tokens by shapes are 'A red circle"):
        made(server)(images(1), PROMPTS[:1], IDS[:1])


def test_what_is_missing_is_said_by_its_key_and_the_doctor_asks_for_the_model(server, tmp_path):
    experiment = Experiment(tmp_path, t2i=tiny_t2i.shallow_folder())

    def config(**options):
        rewards = [{"name": "served_echo", "served_echo": {"endpoint": server.url, **options}}]
        return load_experiment(experiment.config("exp", sections={"rewards": rewards}))

    with pytest.raises(ConfigError) as caught:
        config()
    assert "rewards.0.served_echo.model: is missing" in str(caught.value)
    assert "rewards.0.served_echo.processor: is missing" in str(caught.value)

    def severity(model: str) -> str:
        read = config(model=model, processor="shapes")
        (found,) = reward_servers(SimpleNamespace(config=read, names=lambda stage: ["r"], network=True))
        return found.severity

    assert [severity(name) for name in ("shapes-vlm", "other")] == ["fine", "problem"]
