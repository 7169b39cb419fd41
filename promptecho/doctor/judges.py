"""The judges behind an endpoint: whether their keys are there, and whether the endpoint answers and takes them."""

from __future__ import annotations

import os
from collections.abc import Iterator

from promptecho.config.judge_kinds import judge_kind
from promptecho.config.judges import JudgeSection
from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError
from promptecho.judges.base import FreelyAsked
from promptecho.judges.endpoint import Endpoint
from promptecho.judges.errors import JudgeBusyError, JudgeForbiddenError, JudgePackageError
from promptecho.judges.keys import normal_endpoint

PATIENCE_S = 10.0


def judge_keys(preflight: Preflight) -> Iterator[Finding]:
    """Whether each judge's key is in the environment; asks nobody."""
    for name, settings, when in _judges(preflight):
        try:
            endpoint = Endpoint(settings)
        except PromptEchoError as error:
            fix = "set it where Snakemake is started: jobs get its environment"
            yield problem(f"judges.models.{name}: {error}", when, fix)
            continue
        if settings.api_key_env and not os.environ.get(settings.api_key_env, "").strip():
            told = f"judges.models.{name}: api_key_env: {settings.api_key_env} is not set in this environment"
            yield warning(told, when, "set it, or remove api_key_env where the endpoint takes no key")
        elif endpoint.key:
            yield fine(f"judges.models.{name}: {endpoint.variable} is set")


def judges_answer(preflight: Preflight) -> Iterator[Finding]:
    """Ask each judge's endpoint what costs nothing: whether it takes the key and knows the model."""
    from promptecho.judges.registry import load_judge

    for name, settings, when in _judges(preflight):
        key = f"judges.models.{name}"
        try:
            with_key = bool(Endpoint(settings).key)
        except PromptEchoError:  # told by `judge_keys`
            continue
        try:
            judge = load_judge(settings)
            if not isinstance(judge, FreelyAsked):
                how = "try it with one image: promptecho judge with a limit of 1"
                yield unchecked(f"{key}: kind {settings.kind} has no call that costs nothing", when, how)
                continue
            listed = judge.lists_model(PATIENCE_S)
        except JudgePackageError as error:  # its environment may have it, which `packages` looks at
            yield unchecked(f"{key}: not asked: {error}", when, "look again where the package is installed")
        except JudgeBusyError as error:
            told = f"{key}: {settings.endpoint or judge_kind(settings.kind).provider}: {error}"
            if error.by_status or error.throttled:
                yield warning(told, when, "it may be over soon; look again before images are judged")
            else:
                yield problem(told, when, "correct judges.models endpoint, start the server, or see to the network")
        except JudgeForbiddenError as error:  # keys can be restricted to questions
            told = f"{key}: key and model were not tried, since the list of models is refused: {error}"
            yield unchecked(told, when, "ask it one question by hand (docs/judges.md)")
        except PromptEchoError as error:
            yield problem(f"{key}: {error}", when, "correct the key or the judge's settings (docs/judges.md)")
        else:
            yield _of_list(name, settings, with_key, listed, when)


def _of_list(name: str, settings: JudgeSection, with_key: bool, listed: bool | None, when: str) -> Finding:
    key, place = f"judges.models.{name}", settings.endpoint or judge_kind(settings.kind).provider
    takes = "takes the key" if with_key else "answers without a key"
    if listed:
        return fine(f"{key}: {place} {takes} and has {settings.model}")
    if listed is None:
        told = f"{key}: {place} answers, but lists no models, so that key and model were not tried"
        return unchecked(told, when, "ask it one question by hand (docs/judges.md)")
    told = f"{key}: {place} {takes}, but does not list the model {settings.model}"
    if normal_endpoint(settings) is None:
        return problem(told, when, "correct the name, or use a key that may ask this model")
    return warning(told, when, "correct judges.models model, unless the endpoint lists other names than it takes")


def _judges(preflight: Preflight) -> Iterator[tuple[str, JudgeSection, str]]:
    """(name, settings, jobs) of each judge that will be asked through an endpoint."""
    if "judge" not in preflight.stages:
        return
    for name, settings in preflight.config.judges.models.items():
        benchmarks = [key for key, section in preflight.benchmarks.items() if section.judge == name]
        if benchmarks and not judge_kind(settings.kind).in_process:
            yield name, settings, f"{JOBS['judge']} of {', '.join(benchmarks)}, after all images were made"
