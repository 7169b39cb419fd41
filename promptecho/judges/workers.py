"""The threads that make a judge's calls: rate, budget, retries, and every call's end in the record."""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from promptecho.config.judges import JudgeSection
from promptecho.errors import PromptEchoError
from promptecho.judges.base import Judge, Payload, Reply
from promptecho.judges.errors import JudgeBudgetError, JudgeBusyError, JudgeError
from promptecho.judges.prepare import Prepared, Preparer
from promptecho.judges.record import Record, Row

RESERVE = 2.0  # a call's input tokens are reserved at so many times their guess
POLL_S = 0.1


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds before a busy endpoint is asked again: doubling from `initial` to `longest`, plus up to
    `jitter`. An endpoint's own Retry-After counts where it is longer; above `give_up` it ends everything."""

    initial: float = 1.0
    longest: float = 60.0
    jitter: float = 1.0
    give_up: float = 600.0


BACKOFF = Backoff()


class _StoppedError(Exception):
    """No further call is to be made."""


class _ElsewhereError(Exception):
    """Another process asks the same question now."""


class _UnparsableError(Exception):
    """The reply is recorded and is no answer."""


class RateLimit:
    """At most so many calls begun per minute, evenly spaced; None: no limit."""

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
    prices = (settings.usd_per_million_input_tokens, settings.usd_per_million_output_tokens)
    return None if None in prices else (input_tokens * prices[0] + output_tokens * prices[1]) / 1e6


class Workers:
    """Threads that ask `judge` and write to `record`. `settled(prepared)` tells from the record whether a question
    has its answer, or has failed for good."""

    def __init__(
        self, settings: JudgeSection, judge: Judge, record: Record, preparer: Preparer,
        settled: Callable[[Prepared], bool], backoff: Backoff,
    ):  # fmt: skip
        self.settings, self.judge, self.record, self.preparer = settings, judge, record, preparer
        self.settled, self.backoff = settled, backoff
        self._rate = RateLimit(settings.requests_per_minute)
        self._stop = threading.Event()
        self._queue: deque[Prepared] = deque()
        self._results: queue.SimpleQueue = queue.SimpleQueue()
        self._unanswered = 0
        self._ratio = max(
            [row.input_tokens / row.guess for row in record.all_replies() if row.guess and not row.estimated],
            default=0.0,
        )

    @contextmanager
    def running(self, pending: Sequence[Prepared]) -> Iterator[None]:
        """Start on `pending`; at the end, also by an exception, wait for the calls on their way."""
        self._queue.extend(pending)
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
                print(f"judge {self.judge.name}: stopping; {calls} calls on their way are waited for", file=sys.stderr)
            raise
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()

    def outcomes(self) -> Iterator[tuple[Prepared, str | None]]:
        """Questions as they are done with; the text tells why one was given up.

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
        while not self._stop.is_set():
            try:
                one = self._queue.popleft()
            except IndexError:
                return
            try:
                self._results.put((one, self._ask(one)))
            except _ElsewhereError:
                self._queue.append(one)  # later there may be its answer
                self._stop.wait(POLL_S)
            except _StoppedError:
                return
            except BaseException as error:  # raised again where the outcomes are taken
                self._stop.set()
                self._results.put((one, error))

    def _ask(self, one: Prepared) -> str | None:
        """Ask until there is an answer; returns why not where it is given up."""
        from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential, wait_random

        backoff = self.backoff
        growing = wait_exponential(multiplier=backoff.initial, max=backoff.longest) + wait_random(0, backoff.jitter)

        def pause(state) -> float:
            error = state.outcome.exception()
            return max(growing(state), error.retry_after or 0.0) if isinstance(error, JudgeBusyError) else 0.0

        tries = max(1, self.settings.max_attempts - len(self.record.replies(one.key)))
        retrying = Retrying(
            retry=retry_if_exception_type((JudgeBusyError, _UnparsableError)), stop=stop_after_attempt(tries),
            wait=pause, sleep=self._stop.wait, reraise=True,
        )
        try:
            retrying(self._attempt, one)
        except JudgeBusyError as error:
            return f"{error} ({tries} calls)" if tries > 1 else str(error)
        except _UnparsableError as error:
            return f"unparsable: {error}"
        return None

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
            if (error.retry_after or 0.0) > self.backoff.give_up:
                raise JudgeError(
                    f"judge {self.judge.name}: {error}; it asks to wait {error.retry_after:.0f} s; rerun later, all "
                    "replies are recorded"
                ) from None
            raise
        except PromptEchoError as error:
            self._end_free(begun, error)
            raise
        except BaseException as error:
            self.record.end(begun, "lost", reason=type(error).__name__, estimated=True)
            raise
        self._take(one, begun, payload, reply)

    def _end_free(self, begun: Row, error: PromptEchoError) -> None:
        self.record.end(begun, "failed", reason=str(error), input_tokens=0, output_tokens=0)

    def _take(self, one: Prepared, begun: Row, payload: Payload, reply: Reply) -> None:
        """Record a reply before anything is done with it."""
        values = {"text": _clean(reply.text), "model_version": _clean(reply.model_version)}
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
            one.question.parse(values["text"])
        except BaseException as error:  # a bug in `parse` too: the reply is paid for, so it is kept
            problem = error
        if problem is None:
            self.record.end(begun, "ok", **values)
            return
        reason = " ".join(str(problem).split())[:300]
        self.record.end(begun, "unparsable", reason=reason, **values)
        if not isinstance(problem, ValueError):
            raise problem
        if not self.settled(one):
            raise _UnparsableError(reason)

    def _begin(self, one: Prepared, attempt: int) -> Row | None:
        """Reserve what the call may cost; waits while calls on their way may leave enough. None: no call is needed.

        Raises:
            JudgeBudgetError: it does not fit, and nothing on its way could change that.
        """
        reserve = int(one.input_tokens * max(RESERVE, 1.1 * self._ratio)) + 1
        output = self.settings.max_output_tokens
        while not self._stop.is_set():
            with self.record.transaction():
                if self.settled(one):
                    return None
                if self.record.asked_elsewhere(one.key):
                    raise _ElsewhereError
                if self._fits(reserve, output):
                    return self.record.begin(
                        one.key, one.question.id, attempt, input_tokens=reserve, output_tokens=output,
                        guess=one.input_tokens,
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
        cost = usd(settings, input_tokens, output_tokens)
        spent = usd(settings, record.input_tokens, record.output_tokens)
        if spent + usd(settings, on_way_in, on_way_out) + cost <= settings.budget_usd:
            return True
        if calls:
            return False
        raise JudgeBudgetError(
            f"budget_usd {settings.budget_usd:g} is used up: {spent:.4g} USD are spent and the next call may cost "
            f"{cost:.4g}"
        )


def _clean(text: str) -> str:
    """Text that UTF-8 can hold: models cut off within a character may send half of one."""
    return text.encode("utf-8", "replace").decode()
