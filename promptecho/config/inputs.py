"""Inputs that lie outside the workflow (models, adapters, prompts of the user), known by their contents.

Snakemake sees that an input is newer, not that it is another one: `cp -p` and `rsync` bring older times, and what lies
in a folder does not change the folder's time. So the digest that a rule records also says whether its inputs are still
the ones that were there first: `results/E/config/inputs.json` keeps the hash of each from when it was first seen, and
as long as an input holds that, the digest is that of the configuration alone. Results that are older than this file
are therefore taken as made from what lay there when it was begun, and an input that is merely newer reruns nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from promptecho.config.descriptors import ModelOptions
from promptecho.config.families import family_named
from promptecho.config.guards import guard_entry
from promptecho.config.initial import initial_adapter
from promptecho.config.judge_kinds import judge_kind
from promptecho.config.load import reward_models, reward_vlm, run_vlms
from promptecho.config.models import ExperimentConfig
from promptecho.errors import DataError
from promptecho.file_hashes import FileHashes, files_below
from promptecho.files import digest, read_json, write_json
from promptecho.shipped import is_shipped
from promptecho.source_images import image_files
from promptecho.text_files import LISTS, TABLES, suffix_of

FILE = "inputs.json"
# In a model's folder, beside what is loaded: what it says of itself and the record of its download.
_NOT_LOADED = (".md", ".txt.gz", ".png", ".jpg", ".jpeg", ".webp", ".gif", ".pdf")
_RECORD = "promptecho-model.json"


def inputs_of(
    config: ExperimentConfig,
    stage: str,
    run: str | None = None,
    *,
    image_set: str | None = None,
    benchmark: str | None = None,
    guard: str | None = None,
) -> dict[str, str]:
    """Dotted key -> path as the configuration has it, of the inputs of a stage that are known by content here.

    What is not here: held-out captions and label files of a training, whose hashes are in its state; templates, whose
    text is in the slice; photographs, which have a list of their own.
    """
    found: dict[str, str | None] = {}
    t2i = {"models.t2i.path": config.models.t2i.path}
    if stage == "caption":
        found = {"models.vlm.path": config.models.vlm.path}
    elif stage == "merge":
        found = {"captions.prompts": config.captions.prompts}
    elif stage == "train" and run is not None:
        found = {**t2i, **{f"{key}.path": vlm.path for key, vlm in run_vlms(config, run).items()}}
        models = reward_models(config, run) if run in config.runs else {}
        for key, options in models.items():
            found |= {f"{key}.{name}": model.source for name, model in options.models.items()}
        if run in config.runs and (initial := initial_adapter(config, run)) and initial.step is None:
            found[f"runs.{initial.name}.adapter"] = config.adapters[initial.name].adapter
    elif stage == "generate" and image_set is not None:
        found = {**t2i, f"image_sets.{image_set}.prompts": config.image_sets[image_set].prompts}
    elif stage == "adapter" and run is not None:
        found = {f"runs.{run}.adapter": config.adapters[run].adapter}
    elif stage == "score" and benchmark is not None:
        entry = config.benchmarks[benchmark]
        found = {f"benchmarks.{benchmark}.model": entry.model}
        if entry.judge is not None and judge_kind(config.judges.models[entry.judge].kind).in_process:
            found[f"judges.models.{entry.judge}.model"] = config.judges.models[entry.judge].model
        prompts = config.image_sets[entry.image_set].prompts if entry.image_set in config.image_sets else None
        found[f"image_sets.{entry.image_set}.prompts"] = prompts
    elif stage == "guard" and guard is not None and image_set is not None:
        index, watching = guard_entry(config, guard)
        if (vlm := reward_vlm(config, watching)) is not None:
            found["models.vlm.path" if watching.vlm is None else f"models.vlms.{watching.vlm}.path"] = vlm.path
        if isinstance(watching.options, ModelOptions):
            key = f"guards.{index}.{watching.name}"
            found |= {f"{key}.{name}": model.source for name, model in watching.options.models.items()}
        found[f"image_sets.{image_set}.prompts"] = config.image_sets[image_set].prompts
    if stage in ("merge", "generate") and family_named(config.models.t2i.family).source_image:
        found |= _source_images(found)
    return {key: path for key, path in found.items() if path is not None and not is_shipped(path)}


def _source_images(inputs: dict[str, str | None]) -> dict[str, str | None]:
    """The images that prompt files among `inputs` name."""
    files = {key: path for key, path in inputs.items() if key.endswith("prompts") and path is not None}
    return {
        f"image {number} of {key}": str(image)
        for key, path in files.items()
        for number, image in enumerate(image_files(Path(path).expanduser()), start=1)
    }


class Inputs:
    """The inputs of one experiment.

    Args:
        folder: `results/E/config`.
        hashes: remembers what files hold.
        placed: where a file that the configuration names lies for a rule that takes it as input.
    """

    def __init__(self, folder: str | Path, hashes: FileHashes, placed: Callable[[str], str] = str):
        self.path, self.hashes, self.placed = Path(folder) / FILE, hashes, placed
        self.first: dict[str, str] = read_json(self.path) if self.path.is_file() else {}
        self._new = False
        self._now: dict[str, str | None] = {}

    def content(self, path: str) -> str | None:
        """What a file, or the files of a folder, hold now: 16 hex digits; None where there is nothing, as for a hub id.

        Raises:
            DataError: it cannot be read.
        """
        if path not in self._now:
            self._now[path] = self._read(Path(path).expanduser())
        return self._now[path]

    def _read(self, place: Path) -> str | None:
        try:
            is_file, is_folder = place.is_file(), place.is_dir()
        except OSError as error:  # a folder on the way to it may not be entered
            raise DataError(f"{place}: cannot read ({error.strerror or error})") from None
        if is_file:  # a line of a long text file may change without its ends and its size
            is_text = suffix_of(place) in (*LISTS, *TABLES)
            return (self.hashes.sha256(place) if is_text else self.hashes.sampled(place))[:16]
        if not is_folder:
            return None
        files = [file for file in files_below(place) if file.suffix.lower() not in _NOT_LOADED and file.name != _RECORD]
        return digest({str(file.relative_to(place)): self.hashes.sampled(file) for file in files})

    def changed(self, inputs: dict[str, str]) -> dict[str, str]:
        """The inputs that are not what they were when they were first seen; new ones are seen now."""
        found = {}
        for key, written in inputs.items():
            path = self.placed(written) if key.endswith("prompts") else written
            content = self.content(path)
            if content is None:
                continue
            if path not in self.first:
                self.first[path], self._new = content, True
            if self.first[path] != content:
                found[key] = path
        return found

    def marked(self, slice_digest: str, inputs: dict[str, str]) -> str:
        """The slice's digest, with the contents of the inputs that have changed since they were first seen."""
        changed = self.changed(inputs)
        if not changed:
            return slice_digest
        return digest({"slice": slice_digest, "inputs": {path: self.content(path) for path in changed.values()}})

    def save(self) -> None:
        """Write what was first seen, where that can be written: elsewhere it is seen again next time."""
        self.hashes.save()
        if self._new:
            try:
                write_json(self.path, self.first)
            except DataError:
                return
            self._new = False
