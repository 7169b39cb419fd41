"""Ask a judge many questions: concurrent, recorded, resumed, within a budget."""

from __future__ import annotations

import math
import os
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from promptecho.config.judges import JudgeSection
from promptecho.judges.base import Answer, CallEstimate, Question
from promptecho.judges.errors import JudgeBudgetError, JudgeError
from promptecho.judges.keys import decides, former_endpoints, normal_endpoint, sent_format, token_limit
from promptecho.judges.names import judge_name, model_identity
from promptecho.judges.patience import Backoff
from promptecho.judges.prepare import Prepared, Preparer
from promptecho.judges.record import JournalRow, Record
from promptecho.judges.registry import load_judge
from promptecho.judges.results import Failure, ParsedReplies, Result
from promptecho.judges.workers import BACKOFF, Workers, usd
from promptecho.progress import progress


def ask_all(
    settings: JudgeSection, questions: Sequence[Question], folder: Path, *, backoff: Backoff = BACKOFF,
    again: bool = False,
) -> list[Answer]:  # fmt: skip
    """The judge's answers in the order of the questions; what `folder` has recorded is not asked again.

    A question without an answer has `failure` set: the judge refused (final), its reply was cut at the limit of tokens
    (final until that is raised), its replies were no answers `max_attempts` times (over all runs), or it was given up
    in this run: the endpoint refused the request, failed on it while it answered others, or was away for longer than
    `backoff.outage_s`. Questions that were given up are recorded too: where no other is open and at most
    `max_failed_share` failed, the judge is not asked. Otherwise, and with `again`, such questions are asked once more.
    Equal questions are asked once. The judge, and with it its key, is needed only where a call is. Stopped by Ctrl-C or
    SIGTERM no call is begun any more, and those on their way are recorded when they come; a second signal does not wait
    for them.

    Raises:
        JudgeError: the endpoint refuses key, model or request; or more questions than `max_failed_share` of them
            have no answer.
        JudgeBudgetError: no further call fits `budget_usd` or `max_calls`.
        DataError: an image cannot be read (names the question), or the record is damaged.
    """
    with Record(folder, judge_name(settings)) as record:
        prepared, results = _prepare(settings, questions, record), ParsedReplies(settings, record)
        failures = {} if again else _given_up(prepared, record)
        pending = _pending(prepared, results, failures)
        if failures and (pending or _too_many(settings, prepared, results, failures)):
            failures, pending = {}, _pending(prepared, results, {})
        if pending:
            failures |= _ask_pending(settings, prepared, pending, record, results, backoff)
        asked = {one.key for one in pending}
        found = [results.of(one, failures.get(one.key)) for one in prepared]
        return [
            _answer(settings, one, result, record.replies(one.key), one.key not in asked)
            for one, result in zip(prepared, _ended(settings, prepared, found), strict=True)
        ]


def estimate(settings: JudgeSection, questions: Sequence[Question], folder: Path) -> CallEstimate:
    """What `ask_all` would take now, without a call: one call for each different question that has no answer yet.

    Tokens are scaled by what this judge's recorded replies took. Without any, input tokens are a guess from the
    texts' length and the images' size, and output tokens the most there can be.

    Raises:
        DataError: an image cannot be read (names the question), or the record is damaged.
    """
    record = Record(folder, judge_name(settings))
    prepared = _prepare(settings, questions, record)
    pending = _pending(prepared, ParsedReplies(settings, record), {})
    known = [row for row in record.all_replies() if not row.estimated and row.guess]
    scale = sum(row.input_tokens for row in known) / sum(row.guess for row in known) if known else 1.0
    length = sum(row.output_tokens for row in known) / len(known) if known else token_limit(settings)
    input_tokens = math.ceil(scale * sum(one.input_tokens for one in pending))
    output_tokens = math.ceil(length * len(pending))
    return CallEstimate(
        calls=len(pending),
        recorded=len({one.key for one in prepared}) - len(pending),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        usd=usd(settings, input_tokens, output_tokens),
    )


def _prepare(settings: JudgeSection, questions: Sequence[Question], record: Record) -> list[Prepared]:
    places = {
        (endpoint, limit): None
        for judge, limit in sorted(record.former_limits)
        if not decides(settings)
        for endpoint in [normal_endpoint(settings), *former_endpoints(settings, judge)]
    }
    preparer = Preparer(settings, model_identity(settings), list(places))
    with ThreadPoolExecutor(min(settings.concurrency, os.cpu_count() or 1)) as pool:
        try:
            prepared = list(pool.map(preparer.prepare, questions))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    for one in prepared:
        record.adopt(one.key, one.former, one.as_png)
    return prepared


def _given_up(prepared: list[Prepared], record: Record) -> dict[str, str]:
    """Why questions were left without an answer when they were last asked, by key."""
    return {one.key: reason for one in prepared if (reason := record.given_up(one.key)) is not None}


def _too_many(
    settings: JudgeSection, prepared: list[Prepared], results: ParsedReplies, failures: dict[str, str]
) -> bool:
    known = [results.of(one, failures.get(one.key)) for one in prepared]
    return sum(isinstance(one, Failure) for one in known) > settings.max_failed_share * len(prepared)


def _pending(prepared: list[Prepared], results: ParsedReplies, failures: dict[str, str]) -> list[Prepared]:
    """The questions to ask, each key once, in order; those of `failures` are not."""
    pending = {}
    for one in prepared:
        known = results.of(one, failures.get(one.key))
        if one.key not in pending and known is None:
            pending[one.key] = one
    return list(pending.values())


def _ask_pending(
    settings: JudgeSection, prepared: list[Prepared], pending: list[Prepared], record: Record, known: ParsedReplies,
    backoff: Backoff,
) -> dict[str, str]:  # fmt: skip
    """Make the calls; returns why questions were given up, by key. Ends early where too many failed."""
    groups: dict[str, list[Prepared]] = defaultdict(list)
    for one in prepared:
        groups[one.key].append(one)

    def results(key: str, failure: str | None = None) -> list[Result | None]:
        return [known.of(one, failure) for one in groups[key]]

    def count_failed(key: str, failure: str | None = None) -> int:
        return sum(isinstance(result, Failure) for result in results(key, failure))

    failures: dict[str, str] = {}
    failed, most = sum(count_failed(key) for key in groups), settings.max_failed_share * len(prepared)
    if failed > most:
        return failures  # calls would cost and change nothing
    name = judge_name(settings)
    workers = Workers(
        settings,
        load_judge(settings),
        record,
        Preparer(settings, model_identity(settings)),
        lambda one: None not in results(one.key),
        backoff,
    )
    bar = progress(f"judge {name}", len(groups), "questions", len(groups) - len(pending))
    try:
        with bar as counter, sigterm_raises(), workers.running(pending):
            for one, failure in workers.outcomes():
                counter.advance()
                if failure is not None:
                    failures[one.key] = failure
                    if None in results(one.key):  # what the record shows anyway is not given up
                        record.give_up(one.key, one.question.id, failure)
                failed += count_failed(one.key, failure)
                if failed > most:
                    break
    except JudgeBudgetError as error:
        open_ = sum(None in results(key, failures.get(key)) for key in groups)
        raise JudgeBudgetError(
            f"judge {name}: {error}; {open_} of {len(groups)} questions have no answer; raise it and rerun: all "
            f"{len(record.all_replies())} replies so far are recorded"
        ) from None
    return failures


def _ended(settings: JudgeSection, prepared: list[Prepared], results: list[Result | None]) -> list[Result]:
    """The results of all questions.

    Raises:
        JudgeError: too many failed, after which some may not have been asked.
    """
    failed = [(one, result) for one, result in zip(prepared, results, strict=True) if isinstance(result, Failure)]
    ended = [result for result in results if result is not None]
    if len(failed) <= settings.max_failed_share * len(prepared) and len(ended) == len(results):
        return ended
    kinds = ", ".join(f"{count} {kind}" for kind, count in Counter(result.kind for _, result in failed).most_common())
    one, first = failed[0]
    raise JudgeError(
        f"judge {judge_name(settings)}: {len(failed)} of {len(ended)} questions failed ({kinds}), more than "
        f"max_failed_share {settings.max_failed_share:g} of all {len(prepared)}; the first: {one.question.id}: "
        f"{first.text}; all replies are recorded: see to the cause or raise max_failed_share, then rerun"
    )


def _answer(settings: JudgeSection, one: Prepared, result: Result, replies: list[JournalRow], cached: bool) -> Answer:
    last = replies[-1] if replies else None
    version = last.model_version if last else ""
    # Rows without a format are from an earlier version: under this key they have its format, under others png.
    image_format = sent_format(settings, one.question)[0]
    if last and last.key != one.key:
        image_format = "jpeg" if last.format == "jpeg" else "png"
    answer = Answer(
        one.question, cached=cached, attempts=len(replies), model_version=version,
        order="official" if last and last.order == "official" else "images_first", image_format=image_format,
    )  # fmt: skip
    if isinstance(result, Failure):
        return replace(answer, failure=result.text, kind=result.kind, text=last.text if last else "")
    return replace(answer, value=result[0], text=result[1])


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM leave as Ctrl-C does, by an exception, unless another handler is installed."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def leave(*_: object) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
