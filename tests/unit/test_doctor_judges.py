"""The preflight asks judges only what costs nothing, never tells a key, and counts calls before there is an image."""

from __future__ import annotations

from typing import Any

import pytest
from doctor_world import Make, only, write_experiment
from judge_server import KEY, serving

from promptecho.doctor.judge_costs import judge_costs
from promptecho.doctor.judges import judge_keys, judges_answer
from promptecho.doctor.preflight import Preflight
from promptecho.doctor.totals import Totals, budgets, make_totals
from promptecho.judges.base import Payload
from promptecho.judges.errors import JudgeError
from promptecho.judges.registry import load_judge


@pytest.fixture
def experiment(tmp_path, monkeypatch) -> Make:
    """Writes the experiment to a folder in which the preflight then starts."""
    monkeypatch.chdir(tmp_path)
    return write_experiment


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


def test_a_judge_in_the_job_is_named_among_what_is_not_estimated(experiment, monkeypatch):
    monkeypatch.setattr("promptecho.doctor.totals._plan", lambda *_: None)
    preflight = judged(experiment, kind="local", model="some/vlm")
    totals = make_totals(preflight, "h100")
    assert not totals.judges and "judge of tiif: GPU-hours of a model in the job" in totals.unknown
    assert any("timings/judge" in one.fix for one in budgets(preflight, totals))
    embedded = make_totals(judged(experiment, kind="local", model="shapes"), "h100")
    assert not any("in the job" in line for line in embedded.unknown)


def test_prompts_that_are_not_here_leave_the_calls_unknown(experiment):
    preflight = judged(experiment, kind="openai")
    file = {"tiif": {"benchmark": "tiif", "prompts": "data/benchmarks/tiif/testmini.jsonl", "images_per_prompt": 1}}
    sets = experiment(image_sets=file).config.image_sets
    other = preflight.config.model_copy(update={"image_sets": preflight.config.image_sets | {"tiif": sets["tiif"]}})
    (cost,) = judge_costs(Preflight(other, preflight.source, None, None, preflight.stages, preflight.benchmarks))
    assert cost.calls is None and "testmini.jsonl is not here yet; promptecho benchmarks fetch" in cost.unknown
