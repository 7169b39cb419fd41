"""The server that captions, where `captions.server` names one: whether it answers, or its command is there."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator

from promptecho.config.caption_server import CaptionServerSection
from promptecho.doctor.finding import Finding, fine, problem, unchecked, warning
from promptecho.doctor.preflight import JOBS, Preflight
from promptecho.errors import PromptEchoError
from promptecho.judges.errors import JudgeBusyError, JudgeForbiddenError, JudgePackageError
from promptecho.judges.names import MessageNames

KEY = "captions.server"
PATIENCE_S = 10.0
OF_SHELL = re.compile(r"[;&|<>$`()]")
ASSIGNED = re.compile(r"\w+=\S*")


def caption_server(preflight: Preflight) -> Iterator[Finding]:
    """Ask an endpoint what costs nothing; look for a command's program on this machine."""
    server = preflight.config.captions.server
    if server is None or not preflight.names("caption"):
        return
    if server.api_key_env and not os.environ.get(server.api_key_env, "").strip():
        told = f"{KEY}.api_key_env: {server.api_key_env} is not set in this environment"
        fix = "set it where Snakemake is started, or remove api_key_env where the server takes no key"
        yield warning(told, JOBS["caption"], fix)
    if server.command is not None:
        yield _of_command(server.command)
    elif server.endpoint is not None:
        yield _of_endpoint(server, server.endpoint, preflight.config.models.vlm.path)


def _of_command(command: str) -> Finding:
    told = f"{KEY}.command: {command}"
    try:
        words = shlex.split(command)
    except ValueError as error:
        return problem(f"{told}: {error}", JOBS["caption"], "correct the quotes")
    while words and ASSIGNED.fullmatch(words[0]):
        del words[0]
    if not words or OF_SHELL.search(command):
        how = "try it with one image: promptecho caption shard, or promptecho doctor --rehearse"
        return unchecked(f"{told}: more than one program, which was not tried", JOBS["caption"], how)
    if shutil.which(words[0]) is None:
        fix = "install it on every node, or give its whole path (docs/captioning.md)"
        return problem(f"{told}: there is no program {words[0]} on this machine", JOBS["caption"], fix)
    return fine(f"{KEY}.command: {words[0]} is here")


def _of_endpoint(server: CaptionServerSection, endpoint: str, vlm: str) -> Finding:
    from promptecho.judges.openai_compatible import OpenAIJudge

    at, when = f"{KEY}.endpoint: {endpoint}", JOBS["caption"]
    try:
        names = OpenAIJudge(server.asked_as(server.model or vlm, endpoint), MessageNames(KEY, KEY)).names(PATIENCE_S)
    except JudgePackageError as error:
        return unchecked(f"{at}: not asked: {error}", when, "look again where the package is installed")
    except JudgeBusyError as error:
        if error.by_status:  # it is there, and cannot tell its models
            return unchecked(f"{at}: {error}", when, "caption one image by hand (docs/captioning.md)")
        return problem(f"{at}: {error}", when, "start the server, or correct the endpoint")
    except JudgeForbiddenError as error:  # keys can be restricted to questions
        if server.model is None:
            return problem(f"{at}: {error}", when, f"set {KEY}.model, or give the key the right to list models")
        return unchecked(f"{at}: {error}", when, "caption one image by hand (docs/captioning.md)")
    except PromptEchoError as error:
        return problem(f"{at}: {error}", when, f"correct {KEY} (docs/captioning.md)")
    if not names:
        told = f"{at}: answers, but lists no models, so that the model was not tried"
        return unchecked(told, when, "caption one image by hand (docs/captioning.md)")
    if server.model is not None and server.model not in names:
        fix = f"correct {KEY}.model, unless the server lists other names than it takes"
        return warning(f"{at}: answers, but does not list the model {server.model}", when, fix)
    if server.model is None and vlm not in names and len(names) > 1:
        told = f"{at}: has several models ({', '.join(sorted(names)[:5])}), none of them called {vlm}"
        return problem(told, when, f"say which is to caption in {KEY}.model")
    return fine(f"{at}: answers, and has {server.model or (vlm if vlm in names else names[0])}")
