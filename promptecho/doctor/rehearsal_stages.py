"""Which commands a rehearsal runs: captions, training, images, judges and scores once, each on what
those before it have made."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptecho.cluster.gpus import detect, visible
from promptecho.config.job_sizes import Stage, cluster_resources, takes_gpu
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.resolve import write_resolved
from promptecho.config.scorers import is_pairwise
from promptecho.doctor.judge_costs import prompts_of
from promptecho.doctor.judges import judges_answer
from promptecho.doctor.preflight import Preflight
from promptecho.doctor.rehearsal_command import gets_gpu
from promptecho.doctor.rehearsal_config import RehearsedRun, rehearsed_runs
from promptecho.doctor.rehearsal_runner import StageRunner, make_folder
from promptecho.doctor.rehearsed_stage import RehearsedStage
from promptecho.errors import PromptEchoError, bug_line
from promptecho.files import read_jsonl
from promptecho.phases import MEASURED
from promptecho.train import smoke

MADE_UP = "captions failed, so that a made-up prompt was trained on"
ON_SEVERAL = "train on {} ranks"
WITH_GPUS = "type it on a machine with GPUs, such as in a job of the cluster (salloc)"
ABOVE = "see to what failed above"


class Stages:
    """Runs the stages one after the other; each takes what those before it have made, or something in its place."""

    def __init__(self, preflight: Preflight, folder: Path, minutes: float, paid: bool):
        self.preflight, self.folder, self.paid = preflight, folder, paid
        self.on_gpu = bool(visible(os.environ, detect()))
        self.trains_on_gpu = self.on_gpu and any(gets_gpu(preflight, "train", run) for run in preflight.names("train"))
        self.ranks = _ranks(preflight)
        # One process has no one to share a VLM with; as `train --smoke` does.
        alone = ("offloaded" if self.trains_on_gpu else "replicated") if self.ranks > 1 else None
        self.runs = rehearsed_runs(preflight, folder, alone, small=not self.trains_on_gpu)
        self.runner = StageRunner(preflight, folder, minutes, self.on_gpu)
        self.captions, self.heldout = folder / "captions/captions.h5", folder / "captions/heldout.jsonl"
        self.captioned = self.made_up = False
        self.trained: RehearsedRun | None = None

    @property
    def one(self) -> RehearsedRun:
        """Whose configuration makes images."""
        return self.trained or self.runs[0]

    @property
    def run(self) -> str:
        """Whose images are scored."""
        return self.trained.name if self.trained else "base"

    def all(self) -> Iterator[RehearsedStage]:
        """Run them."""
        if "caption" in self.preflight.stages:
            yield self._caption()
        if "train" in self.preflight.stages:
            if not self.captioned:
                smoke.write_prompts(make_folder(self.captions.parent), 1)
                self.made_up = True
            for run in self.runs:
                yield self._train(run)
            if self.ranks > 1:
                yield self._train_on_several()
        if "generate" in self.preflight.stages:
            image_sets, lacking = self._prompts()
            yield from lacking
            yield from self._generate(image_sets)
            for name in self.preflight.config.adapters:
                yield self._by_published(name, image_sets)
            for name in self.preflight.benchmarks:
                yield from self._score(name)

    def _caption(self) -> RehearsedStage:
        captions, config = self.one.config.captions, self.one.path
        out, images = ["--out", self.captions, "--heldout-out", self.heldout], self.folder / "images"
        shard = self.folder / "captions/shards/0.h5"
        commands: list[list[Any]] = []
        if captions.prompts is not None:
            commands.append(["caption", "prompts", "--config", config, *out])
        else:
            if (world := captions.shapes) is not None:
                rendered = ["--count", world.count, "--seed", world.seed, "--world", world.world]
                commands.append(["shapes", "render", *rendered, "--out", images])
            source = ["--images", images if world is not None else captions.images]
            work = ["--work", self.folder / "work/caption", "--out", shard]
            commands.append(["caption", "shard", "--config", config, *source, *self._threads("caption"), *work])
            commands.append(["caption", "merge", "--shards", shard, "--config", config, *out])
        make_folder(self.captions.parent), make_folder(shard.parent)
        stage = self.runner.run(RehearsedStage("caption", "caption"), commands)
        self.captioned = stage.outcome == "ok"
        return stage

    def _train(self, run: RehearsedRun) -> RehearsedStage:
        out = self.folder / "runs" / run.name / "1"
        command = [
            "train", "--config", run.path, "--run", run.name, "--to", 1, "--captions", self.captions, "--out", out,
            "--work", self.folder / "work/train" / run.name, *self._threads("train"),
        ]  # fmt: skip
        stage = self.runner.run(RehearsedStage(f"train {run.name}", "train"), [command], run.name)
        if stage.outcome == "ok":
            self.trained = self.trained or run
            with contextlib.suppress(PromptEchoError, OSError, IndexError):
                row = read_jsonl(out / "metrics.jsonl")[-1]
                stage.at_work = sum(row.get(f"seconds_{phase}", 0.0) for phase in MEASURED)
                if peak := max((row.get(f"memory_gb_{phase}", 0.0) for phase in smoke.PHASES), default=0.0):
                    stage.memory_gb = peak
            if self.made_up:
                stage.note = MADE_UP
        return stage

    def _train_on_several(self) -> RehearsedStage:
        """The first run on several ranks, compared with one, as `train --smoke` does."""
        ranks, name = self.ranks, ON_SEVERAL.format(self.ranks)
        if self.trains_on_gpu:
            ranks = min(ranks, len(visible(os.environ, detect())))
            if ranks < 2:
                why = f"this machine has one GPU, and the profile asks for {self.ranks} ranks"
                return RehearsedStage(name, "train", skipped=why, fix="type it on a node with several GPUs")
        run = self.runs[0].name
        own_cache = {"models_prompt_cache": str(self.folder / "prompt-cache")}
        config = write_resolved(self.preflight.config.model_copy(update=own_cache), self.folder / "config")
        command = ["train", "--smoke", "--config", config, "--run", run, "--ranks", ranks, "--json"]
        stage = self.runner.run(RehearsedStage(ON_SEVERAL.format(ranks), "train"), [command], run, ranks)
        with contextlib.suppress(OSError, ValueError):
            text = self.runner.log(stage, 0).read_text(encoding="utf-8", errors="replace")
            found = json.loads(text[text.index("{\n") : text.rindex("}") + 1])
            stage.problem = found["problem"]
            several = [trial for trial in found["trials"] if trial["processes"] > 1]
            stage.at_work = sum(sum(trial["seconds"].values()) for trial in several)
            stage.memory_gb = max((gb for trial in several for gb in trial["memory_gb"].values()), default=None)
            differences = found["differences"].items()
            parts = [f"{name} {one['found']:.2g} (tolerated: {one['tolerated']:g})" for name, one in differences]
            stage.note = f"differences to one rank: {', '.join(parts)}" if parts else ""
        return stage

    def _prompts(self) -> tuple[dict[str, Path], list[RehearsedStage]]:
        """Prompt files by image set, and those that nobody can write."""
        found, lacking = {}, []
        for name, section in self.one.config.image_sets.items():
            file = make_folder(self.folder / "prompts" / name) / "metadata.jsonl"
            try:
                if section.heldout is not None:
                    if not self.captioned:
                        why = "its prompts are held-out captions, and captions failed"
                        lacking.append(RehearsedStage(f"generate {name}", "generate", skipped=why, fix=ABOVE))
                        continue
                    from promptecho.benchmarks.heldout import write_heldout

                    write_heldout(self.heldout, 1, file)
                    found[name] = file
                else:
                    found[name] = prompts_of(self.one.config, name, file)
            except Exception as error:  # what a benchmark from outside raises, too
                told = str(error) if isinstance(error, PromptEchoError) else bug_line(error)
                fix = "correct image_sets, or fetch the prompts: promptecho benchmarks fetch"
                lacking.append(RehearsedStage(f"generate {name}", "generate", problem=told, fix=fix))
        return found, lacking

    def _generate(self, prompts: dict[str, Path]) -> Iterator[RehearsedStage]:
        """Images of all sets in one process; those that benchmarks compare with the base model's, by that, too."""
        compared = {one.image_set for one in self.preflight.benchmarks.values() if is_pairwise(one)}
        again = {name: file for name, file in prompts.items() if name in compared} if self.trained else {}
        for run, some in ((self.run, prompts), ("base", again)):
            if not some:
                continue
            together = self._images_by(run, some)
            if not together.problem or len(some) == 1:
                yield together
                continue
            # One of them is at fault; what is made already is not made again.
            apart = [self._images_by(run, {name: file}, f" {name}") for name, file in some.items()]
            if all(one.outcome == "ok" for one in apart):
                apart[0].note = f"each image set alone; all in one process failed: {together.problem}"
            yield from apart

    def _images_by(self, run: str, prompts: dict[str, Path], which: str = "") -> RehearsedStage:
        adapter = self.folder / "runs" / run / "1/adapter" if run != "base" else None
        command = self._generating(self.one.path, run, int(run != "base"), adapter, prompts)
        stage = RehearsedStage(f"generate {run}{which}", "generate", sets=list(prompts))
        return self.runner.run(stage, [command])

    def _by_published(self, name: str, prompts: dict[str, Path]) -> RehearsedStage:
        """An image by a published adapter, which is imported for it."""
        entry, stage = self.preflight.config.adapters[name], RehearsedStage(f"generate {name}", "generate")
        if not prompts:
            stage.skipped, stage.fix = "there are no prompts of any image set", ABOVE
            return stage
        if not Path(entry.adapter).exists() and "SLURM_JOB_ID" in os.environ:
            stage.skipped = f"the adapter {entry.adapter} is not on the disk, and nodes may have no internet"
            stage.fix = "import it on a host that has: promptecho adapter import"
            return stage
        image_set, file = next(iter(prompts.items()))
        whole = self.one.config.model_copy(update={"adapters": {name: entry}})
        config, folder = write_resolved(whole, self.folder / "config"), self.folder / "adapters" / name
        imported: list[Any] = ["adapter", "import", "--config", config, "--source", entry.adapter, "--out", folder]
        imported += ["--revision", entry.revision] if entry.revision else []
        imported += [] if entry.alpha is None else ["--alpha", repr(entry.alpha)]
        make_folder(folder.parent)
        return self.runner.run(stage, [imported, self._generating(config, name, entry.step, folder, {image_set: file})])

    def _generating(
        self, config: Path, run: str, step: int, adapter: Path | None, prompts: dict[str, Path]
    ) -> list[Any]:
        """The command for images of some image sets in one process."""
        command: list[Any] = ["generate", "--config", config, "--run", run, "--step", step]
        command += ["--adapter", adapter] if adapter is not None else []
        for name, file in prompts.items():
            work = self.folder / "work/generate" / run / name
            command += ["--image-set", name, "--prompts", file, "--shard", 0, "--num-shards", 1]
            command += ["--out", self._images(run, name), "--work", work]
        return [*command, *self._threads("generate")]

    def _score(self, name: str) -> Iterator[RehearsedStage]:
        section, run = self.preflight.benchmarks[name], self.run
        judge = self.preflight.config.judges.models.get(section.judge or "")
        free = judge is not None and not judge_kind(judge.kind).in_process and not self.paid
        if free:
            yield self._asked_freely(name)
        scored = RehearsedStage(f"score {name}", "score")
        set_ = self.one.config.image_sets[section.image_set]
        images = self._images(run, section.image_set)
        looks: Stage = "judge" if section.judge is not None else "score"
        made = [images, self._images("base", section.image_set)] if is_pairwise(section) else [images]
        if not all((folder / "shards/0.jsonl").is_file() for folder in made):
            scored.skipped, scored.fix = "there are no images of it", ABOVE
        elif not self.on_gpu and takes_gpu(self.preflight.config, looks, name):
            scored.skipped, scored.fix = "what looks at the images takes a GPU, and there is none here", WITH_GPUS
        elif free:
            scored.skipped = "it takes answers of the judge, which may cost money"
            scored.fix = "--paid asks it about these images"
        if scored.skipped:
            yield scored
            return
        prompts = self._prompt_file(section.image_set)
        options: list[Any] = ["--benchmark", name, "--config", self.one.path, "--images", images]
        options += ["--prompts", prompts, "--images-per-prompt", set_.images_per_prompt]
        if is_pairwise(section):
            options += ["--baseline", made[1]]
        if judge is not None:
            options += ["--answers", self.folder / "judges" / str(section.judge)]
            out = self.folder / "answers" / f"{name}.json"
            judged = self.runner.run(
                RehearsedStage(f"judge {name}", "judge"), [["judge", *options, "--out", out]], name
            )
            yield judged
            if judged.outcome != "ok":
                why = "its judge failed" if judged.problem else "its judge was not tried"
                scored.skipped, scored.fix = why, ABOVE
                yield scored
                return
        named = ["--experiment", "rehearsal", "--run", run, "--step", int(run != "base")]
        out = self.folder / "scores" / name / "1.json"
        yield self.runner.run(scored, [["score", *options, *named, "--out", out]], name)

    def _asked_freely(self, name: str) -> RehearsedStage:
        """A judge behind an endpoint, by the call that costs nothing."""
        stage = RehearsedStage(f"judge {name}", "judge", note="the free call alone; --paid asks about images")
        chosen = replace(self.preflight, benchmarks={name: self.preflight.benchmarks[name]})
        found = list(judges_answer(chosen))
        bad = next((one for one in found if one.severity == "problem"), None)
        if bad is not None:
            stage.problem, stage.fix = bad.what, bad.fix
        elif not any(one.severity == "fine" for one in found):
            told = next((one for one in found), None)
            stage.skipped = told.what if told else "it has no key"
            stage.fix = told.fix if told else "see the judges' keys above"
        return stage

    def _images(self, run: str, image_set: str) -> Path:
        return self.folder / "images-made" / run / image_set

    def _prompt_file(self, image_set: str) -> Path:
        section = self.one.config.image_sets[image_set]
        written = self.folder / "prompts" / image_set / "metadata.jsonl"
        return Path(section.prompts) if section.prompts is not None else written

    def _threads(self, stage: Stage) -> list[str]:
        """As the stage's jobs have them."""
        threads = cluster_resources(self.preflight.config, stage, self.on_gpu).threads or 1
        return ["--threads", str(min(threads, len(os.sched_getaffinity(0))))]


def _ranks(preflight: Preflight) -> int:
    """Ranks of a training on one node, as the profile or the experiment asks for them."""
    profile = preflight.profile
    of_rule = profile.rules.get("train", {}) if profile is not None else {}
    if profile is None or not profile.on_slurm:
        said = of_rule.get("tasks_per_node") or of_rule.get("gpu") or 1
    else:
        on_gpu = any(takes_gpu(preflight.config, "train", name) for name in preflight.names("train"))
        asked = cluster_resources(preflight.config, "train", on_gpu)
        said = of_rule.get("tasks_per_node") or getattr(asked, "tasks_per_node", None) or 1
        nodes = of_rule.get("nodes") or getattr(asked, "nodes", None) or 1
        said = max(said, min(nodes, 2))  # one rank on each of several nodes: two here
    return said if isinstance(said, int) else 1
