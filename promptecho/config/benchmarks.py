"""What is said of each benchmark: from its descriptor follow choices, checks, rules, environments, tables, plans.

A descriptor stands in the benchmark's own folder (promptecho/benchmarks/NAME/__init__.py) and is found by
promptecho/plugins.py. It is imported without torch: heavy parts are named by `module:object` strings.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptecho.config.descriptors import NAME
from promptecho.config.prompt_sources import Source
from promptecho.errors import BenchmarkError, ConfigError, PromptEchoError
from promptecho.plugins import MISTAKES, SPEC, Plugins, Registration, import_object, wrong_types


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What looks at a benchmark's images.

    Args:
        name: by which an entry of `benchmarks` chooses it.
        summary: what it is, in a few words.
        environment: the conda environment of its jobs: the name of a file of envs/, or the path of a YAML file.
        uses_gpu: it is a model of torch, which takes a GPU where there is one.
        uses_network: it must reach the internet, or an endpoint, while it looks.
        is_judge: a model of `judges` is asked (promptecho/benchmarks/scoring.py has the helpers).
        embedded_only: it knows an embedded world and no other, so that prompts must be of that world.
        world: which one that is.
        models: (hub id, kind) of what it loads; `benchmarks.NAME.model` takes the place of the first, and of all where
            it is a folder. Kinds: `transformers`, `modelscope`.
        unproved: what keeps it from running, in words, where nobody has brought it to run; `config check` and the
            preflight tell that.
        instead: what to do then.
    """

    name: str
    summary: str
    environment: str | Path = "score"
    uses_gpu: bool = False
    uses_network: bool = False
    is_judge: bool = False
    embedded_only: bool = False
    world: str = "shapes"
    models: tuple[tuple[str, str], ...] = ()
    unproved: str = ""
    instead: str = ""
    videos: bool = False

    @property
    def needs(self) -> str:
        """What it needs, in words."""
        if self.is_judge:
            return "a judge"
        words = ["a GPU"] * self.uses_gpu + ["network"] * self.uses_network
        return " and ".join(words) or ("the embedded world" if self.embedded_only else "nothing")


# What it knows of its world it needs for captions alone, so that prompts may come from anywhere.
MOVING = Backend(name="moving", summary="the eye of the world of moving shapes", world="moving", videos=True)
ORACLE = Backend(name="oracle", summary="the embedded world's own eye", embedded_only=True)
GALLERY = Backend(name="gallery", summary="the gallery's own eye", embedded_only=True, world="gallery")
JUDGE = Backend(name="judge", summary="a model of `judges`", environment="judge", is_judge=True)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One score that is drawn against the iteration.

    Args:
        key: of the score file's summary.
        title: of the axis.
        estimate: `module:object`, called with (items, what, key): the score with its interval, of items that are those
            of one file or of several seeds. Without it, the mean of the groups' means, of all images, of the prompts,
            or of the group that is called `key`, whichever the summary has.
        tolerance: how far the estimate may be off the summary's number.
    """

    key: str = "overall"
    title: str = "overall score (%)"
    estimate: str = ""
    tolerance: float = 1e-12


_PARTS = ("scorer", "table", "layout", "shapes", "gallery", "verdicts", "image_of", "golden", "unpacked")


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One benchmark.

    Args:
        name: by which `image_sets` and `benchmarks` choose it, of its table and of its rule (`snakemake NAME`);
            lower-case letters, digits, `_` and `-`.
        title: as people write it.
        summary: what it measures, in a few words.
        scorer: `module:object`, called with `ScoringOptions`; returns a `Scorer` (promptecho/benchmarks/scoring.py).
        backends: what may look at its images.
        table: `module:object`, a `TableKind` (promptecho/tables/kind.py) or a function of score files that returns one.
        layout: `module:object` of its image folder, a `Layout` (promptecho/benchmarks/layout.py); "" where it looks at
            images of another benchmark.
        images_of: the benchmark whose image sets it scores; "": its own.
        shares: other benchmarks of ours whose code scores or makes tables here, too: a change of it makes scores,
            tables and curves again.
        version: raise it when a change of the code makes other scores, tables or curves: these are then made again.
        prompts_version: the same for the prompts that `shapes` and `gallery` write; images are then made again, too.
        shapes: `module:object`, called with (per tag, seed, file): writes prompts over the embedded world to the file
            and returns how many; "" where it has none.
        gallery: the same for prompts over the gallery, whose posters have words that no training sees.
        takes_heldout: image sets may take the experiment's held-out captions as prompts.
        sources: official prompt sets, for `promptecho benchmarks fetch`.
        curves: what is drawn against the iteration.
        modes: `official`: the published rules; and `fixed` where a version without their bugs exists.
        pairwise: it compares each image with the baseline's: an outcome is 1 (won), 0 (tie) or -1 (lost).
        images_per_prompt: the only number that it takes, and why: (1, "..."); None: any.
        square_images: why its images must be square; "": they need not be.
        archives: its image sets may be in archives (`image_sets.NAME.storage: zip`): layout and scorer take images from
            `list_images` of promptecho/benchmarks/listing.py, or look for them with promptecho/archives.py.
        unpacked: `module:object`, called with any folder into which images were unpacked: makes of those of this
            benchmark what its official evaluator reads beside them; "" where that is nothing.
        texts_per_prompt: how many texts one of its prompts stands for, each with images of its own.
        message: how the authors put a question to a judge together, for `order: official`; "": images first.
        questions_per_call: a judge may be asked several questions about one image at once.
        verdicts: `module:object`, called with a score file's items: (prompt id, image index) -> outcome or None, for
            figures of samples, where an item is not an image.
        image_of: `module:object`, called with a raw record: the (prompt id, image index) of the image that it is about,
            for pages of results; "" where the record's `prompt_id` and `image_index` say it.
        golden: `module:object`, the checks of its cases with the official code's answers (promptecho/benchmarks/
            golden.py).
        commands: further commands of `promptecho benchmarks`: name -> `module:object`.
        instead_of_oracle: what to write for images of real models where `oracle` is the only backend.
    """

    name: str
    title: str
    summary: str
    scorer: str
    backends: tuple[Backend, ...]
    table: str
    layout: str = ""
    images_of: str = ""
    shares: tuple[str, ...] = ()
    version: int = 1
    prompts_version: int = 1
    shapes: str = ""
    gallery: str = ""
    takes_heldout: bool = False
    sources: tuple[Source, ...] = ()
    curves: tuple[Curve, ...] = (Curve(),)
    modes: tuple[str, ...] = ("official",)
    pairwise: bool = False
    images_per_prompt: tuple[int, str] | None = None
    square_images: str = ""
    archives: bool = False
    unpacked: str = ""
    texts_per_prompt: int = 1
    message: str = ""
    questions_per_call: bool = False
    verdicts: str = ""
    image_of: str = ""
    golden: str = ""
    commands: Mapping[str, str] = field(default_factory=dict)
    instead_of_oracle: str = ""

    def __post_init__(self) -> None:
        problems = wrong_types(self)
        for key, kind in (("backends", Backend), ("curves", Curve)):
            value = getattr(self, key)
            if not isinstance(value, list | tuple) or not all(isinstance(one, kind) for one in value):
                problems.append(f"{key} {value!r}: expected ({kind.__name__}(...),), with a comma after each")
        if self.images_per_prompt is not None and not isinstance(self.images_per_prompt, list | tuple):
            problems.append(f'images_per_prompt {self.images_per_prompt!r}: expected a number and why: (1, "...")')
        if problems:
            raise ValueError(f"Benchmark: {'; '.join(problems)}")
        if not NAME.fullmatch(self.name):
            problems.append(f"name {self.name!r}: take lower-case letters, digits, _ and -")
        for key, spec in self.specs.items():
            if not SPEC.fullmatch(spec) and (spec or key in ("scorer", "table")):
                problems.append(f"{key} {spec!r}: expected MODULE:OBJECT")
        for key in ("version", "prompts_version", "texts_per_prompt"):
            value = getattr(self, key)
            if type(value) is not int or value < 1:
                problems.append(f"{key} {value!r}: count from 1")
        if bool(self.layout) == bool(self.images_of):
            problems.append("give either layout, or images_of for one that scores the images of another")
        if not self.backends:
            problems.append("backends: give one at least")
        if len({one.name for one in self.backends}) < len(self.backends):
            problems.append("backends: two have one name")
        if any(one.is_judge != (one.name == "judge") for one in self.backends):
            problems.append("backends: the one that asks a model of `judges` is called judge, and no other")
        if not self.curves:
            problems.append("curves: give one at least")
        if self.modes not in (("official",), ("official", "fixed")):
            problems.append(f"modes {self.modes}: (official,), or (official, fixed)")
        if problems:
            raise ValueError(f"Benchmark: {'; '.join(problems)}")

    @property
    def specs(self) -> dict[str, str]:
        """All that may be `module:object` strings, by key; "" where there is none."""
        specs = {key: getattr(self, key) for key in _PARTS}
        specs |= {f"commands.{key}": spec for key, spec in self.commands.items()}
        specs |= {f"curves.{curve.key}.estimate": curve.estimate for curve in self.curves}
        return specs

    @property
    def parts(self) -> dict[str, str]:
        """Its `module:object` strings by key."""
        return {key: spec for key, spec in self.specs.items() if spec}

    @property
    def images(self) -> str:
        """The benchmark whose image sets it scores."""
        return self.images_of or self.name

    def backend(self, name: str) -> Backend:
        """Its backend called `name`.

        Raises:
            ConfigError: it has none of that name.
        """
        for one in self.backends:
            if one.name == name:
                return one
        raise ConfigError(f"{self.name} has no backend {name}; it has {', '.join(self.backend_names)}")

    @property
    def reads_videos(self) -> bool:
        """Whether its image sets are of videos."""
        return any(one.videos for one in self.backends)

    @property
    def backend_names(self) -> list[str]:
        return [one.name for one in self.backends]

    @property
    def real_backends(self) -> list[Backend]:
        """Those that look at images of real models."""
        return [one for one in self.backends if not one.embedded_only]


# Also the order in which tables, rules and help texts name them.
BENCHMARKS: Plugins[Benchmark] = Plugins(
    "benchmarks",
    Benchmark,
    {
        name: f"promptecho.benchmarks.{name}:BENCHMARK"
        for name in (
            "geneval",
            "dpg",
            "tiif",
            "densealign",
            "textocr",
            "geneval2",
            "longtext",
            "unigenbench",
            "oneig_alignment",
            "oneig_text",
            "t2icompbench",
            "captions",
            "moving_shapes",
        )
    },
)


def benchmark_named(name: str) -> Benchmark:
    """The descriptor of a benchmark.

    Raises:
        ConfigError: there is none of that name, or it cannot be imported.
    """
    return BENCHMARKS.find(name).thing


def available_benchmarks(ours_only: bool = False) -> list[Registration[Benchmark]]:
    """All benchmarks that may be written now and can be imported, ours first."""
    return BENCHMARKS.available(ours_only)


def takers_of_heldout(videos: bool) -> str:
    """The benchmarks whose image sets take held-out captions, in words: those of videos or those of images."""
    known = [found.thing for found in available_benchmarks()]
    return " or ".join(one.name for one in known if one.takes_heldout and one.reads_videos is videos)


def load_part(benchmark: str, key: str) -> Any:
    """What a benchmark's `module:object` of `key` names, such as its `scorer`.

    Raises:
        ConfigError: it has none, or it cannot be imported.
    """
    found = BENCHMARKS.find(benchmark)
    spec = getattr(found.thing, key)
    if not spec:
        raise ConfigError(f"benchmark {benchmark} ({found}): has no {key}")
    return import_object(spec, f"benchmark {benchmark} ({found})")


@contextlib.contextmanager
def mistakes_told(benchmark: str, part: str) -> Iterator[None]:
    """Around a call of a benchmark's code: mistakes in code from outside become one line. `part`: what is called, such
    as its `scorer`.

    Raises:
        BenchmarkError: the code fails, and the benchmark is not one of ours.
    """
    try:
        yield
    except PromptEchoError:
        raise
    except MISTAKES as error:
        found = BENCHMARKS.find(benchmark)
        if found.is_ours:
            raise
        told = f"its {part} fails: {type(error).__name__}: {error}; --debug shows where"
        raise BenchmarkError(f"benchmark {benchmark} ({found}): {told}") from error


def official_sources() -> list[Source]:
    """The official prompt sets of all benchmarks at hand."""
    return [source for found in available_benchmarks() for source in found.thing.sources]
