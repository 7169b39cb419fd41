"""A node's reward server: ranks that hold nothing but the VLM and answer the trainers beside them.

The first of them (the leader) listens at a Unix socket in a private folder; place and key go to the trainers through
the launcher's store. With several ranks the VLM is sharded over them, and each scores a part of every request.
"""

from __future__ import annotations

import queue
import secrets
import shutil
import sys
import tempfile
import threading
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import torch.distributed as dist
from PIL import Image

from promptecho.errors import PromptEchoError
from promptecho.memory import MemoryAdvice
from promptecho.phases import Phase
from promptecho.train.data import TrainingPrompt
from promptecho.train.placement.layout import RankLayout
from promptecho.train.placement.messages import receive_images, receive_json, send_json
from promptecho.train.ranks import share_of_rank
from promptecho.train.scoring import NotFiniteRewardError, RolloutScores, WeightedReward, score_images
from promptecho.train.stop import StopCheck
from promptecho.vlm.turns import group_timeout

RewardRequest = tuple[list[Image.Image], list[TrainingPrompt], list[str]]


def store_key(node: int) -> str:
    """Name in the store under which a node's server publishes its address and key."""
    return f"promptecho/rewards/{node}"


def serve(
    rewards: list[WeightedReward],
    layout: RankLayout,
    store: dist.Store,
    memory: MemoryAdvice,
    stop: StopCheck,
) -> int:
    """Answer until the node's trainers are done; returns the exit code they end with.

    Raises:
        PromptEchoError: a trainer is gone without a word.
    """
    scorer = _RequestScorer(rewards, layout, memory)
    if not scorer.leads:
        return scorer.follow()
    folder = tempfile.mkdtemp(prefix="promptecho-")  # mode 700
    stop.on_leave = lambda: shutil.rmtree(folder, ignore_errors=True)
    try:
        key = secrets.token_bytes(32)
        address = str(Path(folder) / "rewards")
        with Listener(address, family="AF_UNIX", backlog=layout.trainers_per_node, authkey=key) as listener:
            store.set(store_key(layout.node), f"{address} {key.hex()}")
            connections = [listener.accept() for _ in range(layout.trainers_per_node)]
            print(
                f"rank {layout.rank}: {layout.servers_per_node} process(es) serve the rewards of "
                f"{layout.trainers_per_node} on this node",
                file=sys.stderr,
                flush=True,
            )
            return _answer(scorer, connections)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _answer(scorer: _RequestScorer, connections: list[Connection]) -> int:
    requests: queue.Queue[tuple[Connection, RewardRequest | int | None]] = queue.Queue()
    leaving = threading.Event()
    for connection in connections:
        threading.Thread(target=_read, args=(connection, requests, leaving), daemon=True).start()
    codes: list[int] = []
    while len(codes) < len(connections):
        connection, request = requests.get()
        if request is None:
            scorer.end(1)
            raise PromptEchoError("a trainer of this node is gone; its own message says why")
        if isinstance(request, int):
            codes.append(request)
        elif not leaving.is_set():  # else nobody waits for the answer
            answer = scorer.score(request)
            try:
                send_json(connection, answer)
            except OSError:
                continue  # the reading thread reports that the trainer is gone
    code = max(codes)
    scorer.end(code)
    return code


def _read(connection: Connection, requests: queue.Queue, leaving: threading.Event) -> None:
    """Take requests while others are being scored, so that trainers do not have to wait to send."""
    try:
        while True:
            header = receive_json(connection)
            if "exit_code" in header:
                if header["exit_code"]:
                    leaving.set()
                requests.put((connection, header["exit_code"]))
                return
            requests.put((connection, receive_images(connection, header["images"])))
    except (EOFError, OSError):
        requests.put((connection, None))


class _RequestScorer:
    """Scores a request on this rank, or parts of it on all servers of the node."""

    def __init__(self, rewards: list[WeightedReward], layout: RankLayout, memory: MemoryAdvice):
        self.rewards, self.size, self.memory = rewards, layout.servers_per_node, memory
        self.rank = layout.index % self.size
        self.leads = self.rank == 0
        # Every server makes every node's group, in the same order.
        groups: list[Any] = [None] * layout.nodes
        if self.size > 1:
            groups = [dist.new_group(ranks, timeout=group_timeout()) for ranks in layout.node_groups()]
        self.group = groups[layout.node]
        self.first = layout.node * self.size

    def score(self, request: RewardRequest) -> dict[str, Any]:
        images, prompts, names = request
        shares = [share_of_rank(len(images), rank, self.size) for rank in range(self.size)]
        parts = [([images[i] for i in s], [prompts[i] for i in s], [names[i] for i in s]) for s in shares]
        answers = self._exchange(parts)
        offset = 0
        for answer, share in zip(answers, shares, strict=True):
            if "error" in answer:
                return {**answer, "index": answer.get("index", 0) + offset}
            offset += len(share)
        return RolloutScores.joined([RolloutScores.from_json(answer) for answer in answers]).to_json()

    def follow(self) -> int:
        """Score parts as the leader deals them out; returns its exit code."""
        while True:
            part = self._take(None)
            if isinstance(part, int):
                return part
            self._give(self._score_part(part))

    def end(self, code: int) -> None:
        if self.size > 1:
            self._take([code] * self.size)

    def _exchange(self, parts: list[Any]) -> list[dict[str, Any]]:
        return self._give(self._score_part(self._take(parts)))

    def _take(self, parts: list[Any] | None) -> Any:
        """This rank's part. Pickled by torch, between processes of one job that share their group's store."""
        if self.size == 1:
            assert parts is not None, "a single rank leads"
            return parts[0]
        mine: list[Any] = [None]
        dist.scatter_object_list(mine, parts, src=self.first, group=self.group)
        return mine[0]

    def _give(self, answer: dict[str, Any]) -> list[dict[str, Any]]:
        if self.size == 1:
            return [answer]
        answers: list[Any] = [None] * self.size
        dist.gather_object(answer, answers if self.leads else None, dst=self.first, group=self.group)
        return answers

    def _score_part(self, part: RewardRequest) -> dict[str, Any]:
        images, prompts, names = part
        try:
            with self.memory(Phase.REWARD):
                return score_images(self.rewards, images, prompts, names, lambda n: None).to_json()
        except NotFiniteRewardError as error:
            return {"error": str(error), "facts": error.facts, "index": names.index(error.facts["image"])}
        except PromptEchoError as error:
            return {"error": str(error)}
