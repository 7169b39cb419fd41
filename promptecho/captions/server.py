"""The server that captions: found at its address or started here, and asked through the judges' client."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from promptecho.captions.shard_spec import ShardSpec
from promptecho.cluster.local_server import LocalServer, local_server
from promptecho.config.caption_server import CaptionServerSection
from promptecho.errors import ModelError
from promptecho.judges.base import Payload, Reply
from promptecho.judges.errors import JudgeBusyError, JudgeError, JudgeForbiddenError
from promptecho.judges.names import MessageNames
from promptecho.judges.openai_compatible import OpenAIJudge

SERVER = "captions.server"
WORDING = MessageNames(SERVER, SERVER, f"{SERVER}.outage_s")
POLL_S = 1.0
TOLD_S = 30.0  # between two lines on a server that does not answer yet
LIST_S = 10.0  # for a list of models
FINISHED = frozenset({"", "stop", "eos", "eos_token", "end_turn", "stop_sequence", "length", "content_filter"})


class ServerCaptioner:
    """As a `Judge`; where the server was started here and has ended, that is said at once."""

    def __init__(self, inner: OpenAIJudge, ended: Callable[[], str | None]):
        self.inner, self.ended, self.name = inner, ended, inner.name

    def ask(self, payload: Payload) -> Reply:
        """See `Judge.ask`."""
        try:
            reply = self.inner.ask(payload)
            if reply.finish.lower() not in FINISHED and reply.refusal is None:  # vLLM: abort, at its own end
                told = f"the server broke the caption off (finish_reason {reply.finish})"
                raise JudgeBusyError(told, by_status=True)
            return reply
        except JudgeBusyError:
            if (how := self.ended()) is None:
                raise
        raise JudgeError(f"{SERVER}.command {how}")


@contextlib.contextmanager
def caption_server(spec: ShardSpec, log: Path) -> Iterator[ServerCaptioner]:
    """The server of `spec`, once it answers; one that is started here says what it does to `log`, and ends with the
    block.

    Raises:
        JudgeError: it does not answer in time, ends, refuses the key, or it is not clear which of its models to ask.
        ModelError: `models.vlm` is not here.
    """
    server = spec.server
    assert server is not None
    if server.endpoint is not None:
        yield _answering(spec, server, server.endpoint, [spec.vlm], None)
        return
    assert server.command is not None
    folder = model_folder(spec)
    with local_server(server.command, {"model": folder}, log) as started:
        print(f"{SERVER}: starting at port {started.port}; what it says: {log}", file=sys.stderr, flush=True)
        yield _answering(spec, server, f"http://127.0.0.1:{started.port}/v1", [folder, spec.vlm], started)


def model_folder(spec: ShardSpec) -> str:
    """Where the weights are that a started server is to load: a folder, or a hub id that it looks up itself.

    Raises:
        ModelError: they are not here; or of a hub id a certain revision is wanted, of which a command knows nothing.
    """
    from promptecho.models.locate import check_model_path, stage_model
    from promptecho.shipped import model_path

    path = check_model_path(model_path(spec.vlm, "vlm"), revision=spec.revision)
    found = stage_model(path, spec.revision)
    if spec.revision is not None and not Path(found).is_dir():
        raise ModelError(
            f"models.vlm.revision: {SERVER}.command is given the hub id {found} alone; fetch the model at that "
            "revision first (promptecho models fetch)"
        )
    return found


def _answering(
    spec: ShardSpec, server: CaptionServerSection, url: str, known_as: Sequence[str], started: LocalServer | None
) -> ServerCaptioner:
    """Wait until it lists its models, and choose one."""
    ended = started.ended if started is not None else lambda: None
    client = OpenAIJudge(server.asked_as(server.model or spec.vlm, url), WORDING)
    names = _wait(client, server, started)
    model = server.model or next((name for name in known_as if name in names), None)
    if model is None:
        if len(names) > 1:
            raise JudgeError(f"{SERVER}.model: say which of its models is to caption: {', '.join(sorted(names)[:10])}")
        model = names[0] if names else known_as[0]
    settings = server.asked_as(
        model, url, max_output_tokens=spec.settings.max_new_tokens, temperature=spec.settings.temperature
    )
    return ServerCaptioner(OpenAIJudge(settings, WORDING, seeded=True), ended)


def _wait(client: OpenAIJudge, server: CaptionServerSection, started: LocalServer | None) -> list[str]:
    """The models that it lists, as soon as it answers; none where it has no list, or the key may not see it."""
    key, most = ("start_s", server.start_s) if started is not None else ("outage_s", server.outage_s)
    begin = told = time.monotonic()
    while True:
        try:
            names = client.names(LIST_S)
        except JudgeBusyError as error:
            if error.by_status and str(error).startswith("HTTP 500"):  # it is there, and only its list is broken
                return []
            if error.unknown_host:
                raise JudgeError(f"{SERVER}: {error}; correct the endpoint") from None
            busy = error
        except JudgeForbiddenError:  # keys can be restricted to questions
            if server.model is None:
                raise
            return []
        else:
            if started is not None or told > begin:
                print(f"{SERVER}: answers after {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
            return names
        if started is not None and (how := started.ended()) is not None:
            raise JudgeError(f"{SERVER}.command {how}")
        now = time.monotonic()
        if now - begin >= most:
            where = f"; its last lines: {' | '.join(started.last_lines())}; all: {started.log}" if started else ""
            raise JudgeError(f"{SERVER}: no answer within {SERVER}.{key} {most:g} s ({busy}){where}")
        if now - told >= TOLD_S:
            told = now
            said = f"; the last line of its log: {(started.last_lines(1) or ['none'])[0]}" if started else f": {busy}"
            print(f"{SERVER}: no answer yet after {now - begin:.0f} s{said}", file=sys.stderr, flush=True)
        time.sleep(POLL_S)
