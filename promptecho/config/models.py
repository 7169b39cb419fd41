"""The experiment file and the site file as pydantic models: the one truth for keys, defaults and meaning."""

from __future__ import annotations

import copy
import functools
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StrictStr
from pydantic.fields import FieldInfo

from promptecho.config.caption_server import CaptionServerSection
from promptecho.config.choices import OpenSection, name_of
from promptecho.config.clean import CleanSection
from promptecho.config.compute import ComputeSection
from promptecho.config.evaluation import BenchmarkSection, EvaluateSection, ImageSetSection
from promptecho.config.families import DEFAULT as DEFAULT_FAMILY
from promptecho.config.families import FAMILIES, available_families
from promptecho.config.fields import (
    OF_FAMILY,
    Count,
    CountOrZero,
    Flag,
    Name,
    NonNegative,
    Positive,
    Schedule,
    Section,
    Seed,
    Share,
    Text,
    World,
)
from promptecho.config.judges import JudgesSection
from promptecho.config.resources import ResourcesSection
from promptecho.config.rewards import GuardSection, RewardSection, VlmSection
from promptecho.config.training import TrainingConfig

# Keys that an experiment takes from the site's file.
FROM_SITE = ("models_root", "models_offline", "models_staging", "models_prompt_cache", "models_prompt_cache_gb")
# Filled in when a file is read, never written in one; the adapters are entries of `runs` there.
NOT_WRITTEN = ("experiment", "adapters", "plugins_folder", *FROM_SITE)


PadPrompts = Literal["none", "masked", "unmasked"]


class T2iSection(OpenSection):
    """The text-to-image model that is trained and evaluated."""

    family: Annotated[Text, AfterValidator(name_of(FAMILIES))] = Field(
        DEFAULT_FAMILY, description="Family of the model"
    )
    path: Text = Field(
        description="Folder, or hub id, of the diffusers pipeline; `shapes` or `gallery`: one that comes with it."
    )
    revision: Text | None = Field(None, description="Hub revision (commit); null: the folder as it is.")
    dtype: Literal["float32", "bfloat16"] = Field("bfloat16", description="Type of the frozen weights.")
    height: Count = Field(1024, description=f"Height in pixels of images that have no size of their own. {OF_FAMILY}")
    width: Count = Field(1024, description=f"Width in pixels of images that have no size of their own. {OF_FAMILY}")
    frames: Count = Field(
        1,
        description="How many frames a sample has, for families that make videos (docs/video.md): one more than a "
        "multiple of what the VAE makes one latent frame of, such as 81 or 5; 1: images. Default: that of the family.",
    )
    negative_prompt: StrictStr = Field("", description="Negative prompt: what guidance leads away from.")
    pad_prompts: PadPrompts = Field(
        "none",
        description="none: prompts of a batch are padded to the longest of them and masked, so that padding changes "
        "nothing; masked: to 512 tokens and masked, as the authors' script has it: the same images but for rounding, "
        "and dearer; unmasked: to 512 tokens that take part, as where a version of diffusers ignores the mask: other "
        "images. Other families have no such choice.",
    )
    vae_slicing: Flag = Field(False, description="Decode images one by one: less memory, the same pixels.")
    vae_tiling: Flag = Field(
        False, description="Decode large images in overlapping tiles: less memory, and slightly other pixels."
    )

    def of_size(self, height: int, width: int) -> T2iSection:
        """The same model for images of so many pixels."""
        return self.model_copy(update={"height": height, "width": width})

    @classmethod
    def written_fields(cls, ours_only: bool = False) -> dict[str, FieldInfo]:
        families = [found.thing for found in available_families(ours_only)]
        return _t2i_fields(tuple((one.name, one.title, "pad_prompts" in one.takes) for one in families))

    @classmethod
    def open_choices(cls) -> tuple[str, ...]:
        return ("family",)


@functools.cache
def _t2i_fields(families: tuple[tuple[str, str, bool], ...]) -> dict[str, FieldInfo]:
    """The keys of `models.t2i` with these families: name, title, and whether it pads prompts."""
    fields = {key: copy.copy(field) for key, field in T2iSection.model_fields.items()}
    named = ", ".join(f"{name} ({title})" for name, title, _ in families)
    fields["family"].description = f"{fields['family'].description}: {named}; or one from outside (docs/extending.md)."
    fields["family"].annotation = Literal[tuple(name for name, *_ in families)]  # type: ignore[assignment]
    takers = " and ".join(name for name, _, pads in families if pads)
    fields["pad_prompts"].description = f"For {takers}: {fields['pad_prompts'].description}"
    return fields


class ModelsSection(Section):
    """The models of an experiment."""

    t2i: T2iSection = Field(description="Text-to-image model.")
    vlm: VlmSection = Field(description="Vision-language model.")
    vlms: dict[Name, VlmSection] = Field(
        default_factory=dict,
        description="Further VLMs by names of your choice, for rewards that name them (`rewards`: `vlm`).",
    )


class RenderedImages(Section):
    """Images rendered from the embedded world."""

    count: Count = Field(description="Number of images to render.")
    seed: Seed = Field(description="Seed of the scenes.")
    world: World = Field("shapes", description="shapes; or gallery: dense scenes (docs/shapes.md).")


DEFAULT_MAX_PIXELS = 1024 * 1024


def _colour(value: Any) -> Any:
    if isinstance(value, str) and value != "white":
        from PIL import ImageColor

        ImageColor.getrgb(value)  # ValueError: unknown color specifier
    return value


class CaptionsSection(Section):
    """Training prompts: captions of images, or prompts that a file brings."""

    images: Text | None = Field(
        None,
        description="Folder of images, a text file that lists one image a line, or a JSON Lines file of {image_id, "
        "path} (docs/images.md). Relative to where you start.",
    )
    prompts: Text | None = Field(
        None,
        description="Prompts used as captions: a .txt file (a prompt a line), or .jsonl or .csv (a row a prompt: "
        "`caption`, `prompt` or `text`, and where there is one its `data_id`, `id` or `index`), in UTF-8, or UTF-16 "
        "with its byte order mark; for a model that edits images also an `image`, a path below the file's folder "
        "(docs/editing.md). Relative to where you start.",
    )
    shapes: RenderedImages | None = Field(None, description="Caption images rendered from the embedded world.")
    query: Text = Field("Describe this image in detail.", description="What the VLM is asked about each image.")
    num_shards: Count = Field(8, description="Number of captioning jobs; each writes one HDF5 shard.")
    server: CaptionServerSection | None = Field(
        None,
        description="An OpenAI-compatible server (vLLM, SGLang, ...) that writes the captions; null: transformers in "
        "each job does, with `models.vlm`.",
    )
    background: Annotated[Text, BeforeValidator(_colour)] = Field(
        "white", description="Colour behind transparent pixels: a name of HTML, or '#rrggbb'."
    )
    max_pixels: Count | None = Field(
        DEFAULT_MAX_PIXELS,
        description="Larger images are shrunk to so many pixels before they are captioned: those of the images that "
        "are generated, 1024 x 1024, so that no caption describes what these cannot show. null: never, which for "
        "photographs of 4 megapixels and more takes several times the memory.",
    )
    batch_size: Count = Field(16, description="Images captioned together.")
    max_new_tokens: Count = Field(512, description="Longest caption in tokens of the VLM.")
    temperature: NonNegative = Field(0.0, description="0: greedy; above: sampled, with a seed per image.")
    seed: Seed = Field(0, description="Seed of sampled captions.")
    heldout: CountOrZero = Field(
        1000, description="Number of captions kept out of training, chosen by the image's hash."
    )
    max_words: Count = Field(200, description="Captions are cut after this many words, once, when shards are merged.")
    max_tokens: Count = Field(
        504,
        description="Captions are cut after this many tokens of the text-to-image model, and earlier where its text "
        "encoder takes fewer. 504: 512 less eight for Z-Image's chat template.",
    )
    max_rejected_share: Share = Field(0.05, description="Largest share of rejected captions; above it the merge fails.")

    @property
    def writes(self) -> bool:
        """Whether a VLM writes them: prompts that are brought are imported, and an experiment may have none."""
        return self.images is not None or self.shapes is not None


class AdapterSection(Section):
    """An adapter from elsewhere: PEFT's folder, or a LoRA file of diffusers or another trainer."""

    adapter: Text = Field(description="Folder, LoRA file, or hub id `owner/name`.")
    revision: Text | None = Field(None, description="Hub revision (commit); null: the newest.")
    step: Count = Field(1, description="Iterations that it was trained for, if known; tables show it.")
    schedule: Schedule | None = Field(
        None, description="`image_sets.SET.schedule` for its images, where it was published with another; null: that."
    )
    pad_prompts: PadPrompts | None = Field(None, description="Likewise for `models.t2i.pad_prompts`; null: that.")
    alpha: Positive | None = Field(
        None,
        description="LoRA alpha that it was trained with, for a file that does not contain it; null: strength "
        "1 there, as "
        "diffusers takes it.",
    )


class ExperimentConfig(Section):
    """One experiment: `config/experiments/NAME.yaml`. Each entry of `runs` holds `training` with its overrides."""

    experiment: Name = Field(description="Name; taken from the file's name, not written in it.")
    models: ModelsSection = Field(description="Models.")
    captions: CaptionsSection = Field(
        default_factory=CaptionsSection,
        description="Training prompts. Without runs, and without image sets of held-out captions, none are needed.",
    )
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="What every run does.")
    rewards: list[RewardSection] = Field(
        default_factory=lambda: [RewardSection()],
        min_length=1,
        description="Weighted rewards; a run may have its own (`training.rewards`).",
    )
    guards: list[GuardSection] = Field(
        default_factory=list,
        description="Rewards that watch: they score the images of every checkpoint (docs/tables.md).",
    )
    runs: dict[Name, TrainingConfig] = Field(
        default_factory=dict, description="Runs by name; each may override any key of `training`."
    )
    adapters: dict[Name, AdapterSection] = Field(
        default_factory=dict,
        description="Published adapters that are evaluated like runs. Written under `runs`: an entry with `adapter`.",
    )
    judges: JudgesSection = Field(default_factory=JudgesSection, description="Models that judge images.")
    image_sets: dict[Name, ImageSetSection] = Field(default_factory=dict, description="Sets of images to generate.")
    benchmarks: dict[Name, BenchmarkSection] = Field(default_factory=dict, description="Benchmarks by name.")
    evaluate: list[EvaluateSection] = Field(default_factory=list, description="Which benchmark runs where.")
    tables: list[Text] = Field(default_factory=list, description="Benchmarks (keys of `benchmarks`) to tabulate.")
    words: Flag = Field(
        False,
        description="Whether `figures` and `all` also make the page of each run's samples whose prompts are coloured "
        "word by word (docs/words.md). It loads the VLM. `snakemake words` makes it in any case.",
    )
    resources: ResourcesSection = Field(default_factory=ResourcesSection, description="What jobs ask a cluster for.")
    compute: ComputeSection = Field(default_factory=ComputeSection, description="How models compute.")
    plugins: list[Text] = Field(
        default_factory=list,
        description="What is not installed and comes from outside, such as a reward of your own: `module:object` of "
        "each, the module beside the experiment file or on Python's path (docs/extending.md). This code runs with your "
        "rights, so that a file from outside the folder where you start needs `--allow-plugins`.",
    )
    plugins_folder: Text | None = Field(
        None, description="Filled in, not written in the file: the experiment file's folder, where it names plugins."
    )
    models_root: Text | None = Field(
        None, description="Taken from the site configuration, not written in the file: where relative model paths are."
    )
    models_offline: Flag = Field(False, description="Likewise: jobs do not ask the hub.")
    models_staging: Text | None = Field(None, description="Likewise: where nodes keep copies of models.")
    models_prompt_cache: Text | None = Field(None, description="Likewise: where embeddings of prompts are kept.")
    models_prompt_cache_gb: Positive | None = Field(None, description="Likewise: how large they may become there.")


class SiteModels(Section):
    """How this site's jobs get at models (docs/models.md)."""

    offline: Flag | None = Field(
        None,
        description="true: jobs never ask the hub, and a model that is not on this machine is an error at once; null: "
        "true where models_root is set.",
    )
    staging: Text | None = Field(
        None,
        description="Folder on a disk of each node, such as /local/scratch or $SLURM_TMPDIR: the first process of a "
        "node copies a model folder there, and all load from the copy; null: models are loaded from where they are.",
    )
    prompt_cache: Text | None = Field(
        "results/{experiment}/work/prompts",
        description="Folder for the text encoder's embeddings of prompts: each is computed once, and the encoder is on "
        "the GPU only while one is missing; experiments may share a folder. null: the encoder stays on the GPU. The "
        "results are the same bits either way.",
    )
    prompt_cache_gb: Positive | None = Field(
        50.0,
        ge=1,  # less would not hold what is encoded ahead
        description="How large the embeddings of one text encoder may become there, about, in 10^9 bytes: beyond it "
        "those that were not read for the longest time go, and are computed again if they are asked for. A prompt of "
        "250 tokens takes 1.3 MB (Z-Image) to 1.8 MB (Qwen-Image), 100,000 of them without a limit 130 to 180 GB. "
        "null: no limit.",
    )


class SiteBenchmarks(Section):
    """Where this site keeps the benchmarks' official files."""

    mirror: Text | None = Field(
        None, description="Folder with copies of the official files (MIRROR/NAME/...), for sites without internet."
    )


class SiteConfig(Section):
    """`config/config.yaml`: what to build, and where this site keeps things."""

    experiments: list[Name] = Field(min_length=1, description="Experiments that `all` builds.")
    experiments_dir: Text = Field("config/experiments", description="Folder of the experiment files.")
    allow_plugins: Flag = Field(
        False,
        description="Run the code that an experiment file from outside the folder where you start names in `plugins`.",
    )
    models_root: Text | None = Field(
        None, description="A relative model path that exists in this folder is taken from there; null: as it is."
    )
    models: SiteModels = Field(default_factory=SiteModels, description="How jobs get at models.")
    envs: Text | None = Field(
        None,
        description="Folder of environments that `promptecho envs build` has made (docs/environments.md); each job "
        "uses that of its stage. null: the Python that runs Snakemake, or conda's where Snakemake makes environments.",
    )
    benchmarks: SiteBenchmarks = Field(default_factory=SiteBenchmarks, description="The benchmarks' official files.")
    clean: CleanSection = Field(default_factory=CleanSection, description="What `promptecho clean` may delete.")
    paper_rows: dict[str, Text] = Field(
        default_factory=dict,
        description="For `snakemake paper`: which run is compared with which row of the paper's tables, for example "
        "`Z-Image + PromptEcho: zimage/promptecho@400` (docs/tables.md). Rows that are not named have defaults.",
    )
