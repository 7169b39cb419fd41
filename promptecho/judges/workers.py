"""The threads that make a judge's calls: rate, budget, retries, and every call's end in the record."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from promptecho.config.judges import JudgeSection
from promptecho.errors import PromptEchoError
from promptecho.judges.base import Judge, Reply
from promptecho.judges.errors import (
    JudgeBudgetError,
    JudgeBusyError,
    JudgeError,
    JudgeRejectedError,
    RefusedError,
    UnaskableError,
)
from promptecho.judges.keys import sent_format, token_limit
from promptecho.judges.names import MessageNames
from promptecho.judges.patience import Backoff, Patience
from promptecho.judges.prepare import PayloadMaker, Prepared
from promptecho.judges.record import JournalRow, Record, Status
from promptecho.judges.turns import QuestionQueue, Trouble

RESERVE = 2.0  # a call's input tokens are reserved at so many times their guess
POLL_S = 0.1
REJECTED_FIRST = 3  # requests refused before anything was answered: the settings are at fault, not a question


BACKOFF = Backoff()


class _StoppedError(Exception):
    """No further call is to be made."""


class _ElsewhereError(Exception):
    """Another process asks the same question now."""


class _UnparsableError(Exception):
    """The reply is recorded and is no answer."""


class _LaterError(Exception):
    """The endpoint failed on a question: it is to be asked again after `pause` seconds, and no question before
    `retry_after`."""

    def __init__(self, pause: float, retry_after: float):
        super().__init__()
        self.pause, self.retry_after = pause, retry_after


class RateLimit:
    """At most so many calls started per minute, evenly spaced; None: no limit."""

    def __init__(self, per_minute: float | None):
        self._gap = 60.0 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def delay(self) -> float:
        """Take the next place; returns the seconds until it."""
        with self._lock:
            now = time.monotonic()
            place = max(now, self._next)
            self._next = place + self._gap
            return place - now


def usd(settings: JudgeSection, input_tokens: int, output_tokens: int) -> float | None:
    """Price of the tokens; None where the settings name no prices."""
    price_in, price_out = settings.usd_per_million_input_tokens, settings.usd_per_million_output_tokens
    if price_in is None or price_out is None:
        return None
    return (input_tokens * price_in + output_tokens * price_out) / 1e6


def _cost(settings: JudgeSection, input_tokens: int, output_tokens: int) -> float:
    """`usd` under a budget."""
    cost = usd(settings, input_tokens, output_tokens)
    assert cost is not None, "settings with budget_usd and without prices are refused"
    return cost


class Workers:
    """Threads that ask `judge` and write to `record`. `settled(prepared)` reads in the record whether a question
    has its answer, or has failed for good. `wording`: what messages call the judge. `paid`: where a reply is lost, that
    counts against its question, as it may have cost money; otherwise only what shows the question itself to be at fault
    does."""

    def __init__(
        self, settings: JudgeSection, judge: Judge, record: Record, preparer: PayloadMaker,
        settled: Callable[[Prepared], bool], backoff: Backoff, wording: MessageNames | None = None,
        *, paid: bool = True,
    ):  # fmt: skip
        self.settings, self.judge, self.record, self.preparer = settings, judge, record, preparer
        self.settled, self.backoff, self.paid = settled, backoff, paid
        self.limit = token_limit(settings)
        self.wording = wording or MessageNames(f"judge {judge.name}")
        self._patience = Patience(self.wording, backoff)
        self._troubles: dict[str, Trouble] = {}
        self._suspects: set[str] = set()  # questions on which the endpoint failed while it answered others
        self._rejected = 0
        self._answered = bool(record.all_replies())
        self._rate = RateLimit(settings.requests_per_minute)
        self._stop = threading.Event()
        self._turns = QuestionQueue()
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._unanswered = 0
        self._ratio = max(
            [row.input_tokens / row.guess for row in record.all_replies() if row.guess and not row.estimated],
            default=0.0,
        )

    @contextmanager
    def running(self, pending: Sequence[Prepared]) -> Iterator[None]:
        """Start on `pending`; at the end, also by an exception, wait for the calls on their way."""
        self._turns.extend(pending)
        self._unanswered = len(pending)
        threads = [
            threading.Thread(target=self._work, daemon=True, name=f"judge-{index}")
            for index in range(min(self.settings.concurrency, len(pending)))
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            calls = self.record.reserved()[0]
            if calls:
                print(f"{self.wording.who}: stopping; {calls} calls on their way are waited for", file=sys.stderr)
            raise
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def outcomes(self) -> Iterator[tuple[Prepared, str | None]]:
        """Questions as they are finished; the text says why one was given up.

        Raises:
            JudgeError: as `ask_all`.
        """
        while self._unanswered:
            one, outcome = self._results.get()
            if isinstance(outcome, BaseException):
                raise outcome
            self._unanswered -= 1
            yield one, outcome

    def _work(self) -> None:
        failures = 0  # calls in a row to which this thread had no reply
        while not self._stop.is_set():
            one, wait = self._turns.take(after_failure=failures > 0)
            if one is None:
                if wait is None:
                    return
                self._stop.wait(wait)
                continue
            try:
                self._results.put((one, self._ask(one)))
                failures = 0
            except _ElsewhereError:
                self._turns.put_off(one, POLL_S)  # later there may be its answer
            except _LaterError as later:
                failures += 1
                # Its own next call is put off, and this thread's too, which then tries another question first: so that
                # an endpoint that is away is not hurried, and one question's trouble holds up no other.
                self._turns.put_off(one, later.pause)
                self._stop.wait(max(self.backoff.pause(one.key, failures), later.retry_after))
            except _StoppedError:
                return
            except BaseException as error:  # raised again where the outcomes are taken
                self._stop.set()
                self._results.put((one, error))

    def _ask(self, one: Prepared) -> str | None:
        """Ask until there is a reply, which may be no answer; returns why not where it is given up.

        Raises:
            _LaterError: the endpoint failed; to be asked again later.
        """
        trouble = self._troubles.setdefault(one.key, Trouble())
        while True:
            # Whether others were answered between the last failure and now: then the endpoint was there in between, so
            # that another failure is this question's own. (At an outage's begin and end calls overlap with replies.)
            others = trouble.failed > 0 and self._patience.replies > trouble.replies
            trouble.calls += 1
            try:
                self._attempt(one)
                return None
            except _UnparsableError:
                trouble.failed = 0
                continue
            except UnaskableError as error:
                return str(error)
            except JudgeRejectedError as error:
                return self._reject(error)
            except JudgeBusyError as error:
                busy = error
            break
        trouble.failed += 1
        away = self._wait_or_end(busy)
        trouble.replies = self._patience.replies
        if others:
            self._suspects.add(one.key)
        only_suspects = one.key in self._suspects and len(self._suspects) >= self._unanswered
        # And a reply that may have been paid for is not asked for without end.
        if (self.paid and busy.maybe_billed) or ((others or only_suspects) and not busy.throttled):
            trouble.strikes += 1
            self._suspects.add(one.key)
        told = f" ({trouble.calls} calls)" if trouble.calls > 1 else ""
        if trouble.strikes >= self.settings.max_attempts:
            return f"{busy}{told}"
        # No other question is left that could show whether the endpoint is there: soon it is this question's own
        # failure.
        own = busy.by_status or (busy.maybe_billed and not self.paid)
        left_alone = own and self._answered and (only_suspects or self._unanswered <= 1)
        if left_alone and trouble.failed >= self.settings.max_attempts and away >= self.backoff.alone_s:
            return f"{busy} ({trouble.calls} calls, the last ones for {away:.0f} s after all others were answered)"
        if away >= self.backoff.outage_s:
            return f"outage: no reply for {self.backoff.outage_s:g} s, the last: {busy}{told}"
        retry_after = busy.retry_after or 0.0
        raise _LaterError(max(self.backoff.pause(one.key, trouble.failed), retry_after), retry_after)

    def _wait_or_end(self, busy: JudgeBusyError) -> float:
        """Seconds since the last reply to any thread.

        Raises:
            JudgeError: waiting would be no use, or be asked to be longer than it may.
        """
        if busy.unknown_host and not self._patience.replies:
            raise JudgeError(f"{self.wording.who}: {busy}; correct the endpoint")
        if (busy.retry_after or 0.0) > self.backoff.outage_s:
            raise JudgeError(
                f"{self.wording.who}: {busy}; it asks to wait {busy.retry_after:.0f} s, longer than "
                f"{self.wording.outage_key} {self.backoff.outage_s:g}; rerun later, all replies are recorded"
            )
        return self._patience.failed(str(busy))

    def _reject(self, error: JudgeRejectedError) -> str:
        self._rejected += 1
        if self._rejected >= REJECTED_FIRST and not self._answered:
            raise JudgeError(
                f"{self.wording.who}: {error}; so were the first {self._rejected} questions, and none was "
                f"answered: correct {self.wording.settings}"
            )
        return str(error)

    def _attempt(self, one: Prepared) -> None:
        self.record.refresh()
        if self.settled(one):
            return
        if self.record.asked_elsewhere(one.key):
            raise _ElsewhereError
        if self._stop.wait(self._rate.delay()):
            raise _StoppedError
        attempt = len(self.record.replies(one.key)) + 1
        payload = self.preparer.payload(one, attempt)
        begun = self._begin(one, attempt)
        if begun is None:
            return
        try:
            reply = self.judge.ask(payload)
        except JudgeBusyError as error:
            if error.maybe_billed:
                self.record.end(begun, "lost", reason=str(error), estimated=True)
            else:
                self._end_free(begun, error)
            raise
        except PromptEchoError as error:
            self._end_free(begun, error)
            if isinstance(error, JudgeRejectedError):
                self._patience.replied()
            raise
        except BaseException as error:
            self.record.end(begun, "lost", reason=type(error).__name__, estimated=True)
            raise
        self._answered = True
        self._patience.replied()
        self._take(one, begun, reply)

    def _end_free(self, begun: JournalRow, error: PromptEchoError) -> None:
        self.record.end(begun, "failed", reason=str(error), input_tokens=0, output_tokens=0)

    def _take(self, one: Prepared, begun: JournalRow, reply: Reply) -> None:
        """Record a reply before anything is done with it."""
        text = _clean(reply.text)
        values: dict[str, Any] = {
            "text": text, "model_version": _clean(reply.model_version), "finish": _clean(reply.finish),
            "thinking_tokens": reply.thinking_tokens,
        }  # fmt: skip
        if reply.input_tokens or reply.output_tokens:
            values |= {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
            self._ratio = max(self._ratio, reply.input_tokens / max(begun.guess, 1))
        else:
            values["estimated"] = True
        if reply.refusal is not None:
            self.record.end(begun, "refused", reason=_clean(reply.refusal), **values)
            return
        problem: BaseException | None = None
        try:
            one.question.parse(text)
        except BaseException as error:  # a bug in `parse` too: the reply is paid for, so it is kept
            problem = error
        if problem is None:
            self.record.end(begun, "ok", **values)
            return
        reason = " ".join(str(problem).split())[:300]
        status: Status = "unparsable"
        if isinstance(problem, RefusedError):
            status, reason = "refused", f"in words: {reason}"
        elif reply.empty:
            status, reason = "empty", "no candidate"
        elif reply.cut and isinstance(problem, ValueError):
            status, reason = "cut", cut_reason(begun.limit, reply.finish, reply.thinking_tokens)
        self.record.end(begun, status, reason=reason, **values)
        if not isinstance(problem, ValueError):
            raise problem
        if not self.settled(one):
            raise _UnparsableError(reason)

    def _begin(self, one: Prepared, attempt: int) -> JournalRow | None:
        """Reserve what the call may cost; waits while calls on their way may leave enough. None: no call is needed.

        Raises:
            JudgeBudgetError: it does not fit, and nothing on its way could change that.
        """
        reserve = int(one.input_tokens * max(RESERVE, 1.1 * self._ratio)) + 1
        output = self.limit
        while not self._stop.is_set():
            with self.record.transaction():
                if self.settled(one):
                    return None
                if self.record.asked_elsewhere(one.key):
                    raise _ElsewhereError
                if self._fits(reserve, output):
                    return self.record.begin(
                        one.key,
                        one.question.id,
                        attempt,
                        input_tokens=reserve,
                        output_tokens=output,
                        guess=one.input_tokens,
                        order=one.question.order,
                        format=sent_format(self.settings, one.question)[0],
                    )
            self._stop.wait(POLL_S)
        raise _StoppedError

    def _fits(self, input_tokens: int, output_tokens: int) -> bool:
        settings, record = self.settings, self.record
        limit = settings.max_calls
        if limit is not None and record.calls >= limit:
            raise JudgeBudgetError(f"max_calls {limit} is used up")
        if settings.budget_usd is None:
            return True
        calls, on_way_in, on_way_out = record.reserved()
        cost = _cost(settings, input_tokens, output_tokens)
        spent = _cost(settings, record.input_tokens, record.output_tokens)
        if spent + _cost(settings, on_way_in, on_way_out) + cost <= settings.budget_usd:
            return True
        if calls:
            return False
        raise JudgeBudgetError(
            f"budget_usd {settings.budget_usd:g} is used up: {spent:.4g} USD are spent and the next call may cost "
            f"{cost:.4g}"
        )


def cut_reason(limit: int, finish: str, thinking_tokens: int) -> str:
    """Why a reply that reached its limit of tokens is no answer, and what to do."""
    thoughts = f", {thinking_tokens} of them thoughts" if thinking_tokens else ""
    ended = f" (finish reason {finish}{thoughts})" if finish else ""
    return f"at max_output_tokens {limit}{ended}; raise max_output_tokens to have it asked again"


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: models cut off within a character may send half of one."""
    return text.encode("utf-8", "replace").decode()
