"""Where the official prompt sets come from: pinned commits, hashes, licences, citations.

`sha256sums.txt` beside this file lists every file as SET/FILE with its SHA-256 (the format of `sha256sum`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from promptecho.errors import ConfigError

RAW = "https://raw.githubusercontent.com"


@dataclass(frozen=True)
class SourceFile:
    """One official file. `name` is its place in the set's folder, `path` its place in the repository.

    It is pinned by its SHA-256, or by git's own hash of it where no more is known.
    """

    name: str
    path: str
    sha256: str | None = None
    git_blob: str | None = None

    def problem(self, content: bytes) -> str | None:
        """Why `content` is not this file; None if it is."""
        checks = (("SHA-256", self.sha256, sha256), ("git blob id", self.git_blob, git_blob_id))
        for what, expected, compute in checks:
            if expected is not None and compute(content) != expected:
                return f"its {what} is {compute(content)}, not {expected}"
        return None


@dataclass(frozen=True)
class Source:
    """One official prompt set.

    `folder` is where its files are in the repository, `mirror` their folder in a mirror, `prompts` the files that image
    sets name as their prompts. `packs` maps those of them that are made here to the two folders they are made from
    (prompts, evaluation prompts).
    """

    name: str
    title: str
    repository: str  # owner/name on GitHub
    commit: str
    folder: str
    licence: str | None  # None: the repository states none
    citation: str
    prompts: tuple[str, ...]
    mirror: str
    git_blobs: dict[str, str] = field(default_factory=dict)
    packs: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The official files, in a fixed order."""
        prefix, mine = f"{self.folder}/" if self.folder else "", f"{self.name}/"
        sums = {name.removeprefix(mine): value for name, value in sha256_sums().items() if name.startswith(mine)}
        names = sorted({*sums, *self.git_blobs})
        return tuple(SourceFile(name, prefix + name, sums.get(name), self.git_blobs.get(name)) for name in names)

    @property
    def url(self) -> str:
        """The repository's page at the pinned commit."""
        return f"https://github.com/{self.repository}/tree/{self.commit}"


def sha256(content: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(content).hexdigest()


def git_blob_id(content: bytes) -> str:
    """The hash under which git stores a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


@cache
def sha256_sums() -> dict[str, str]:
    """SHA-256 of every file with a known one, by SET/FILE."""
    lines = Path(__file__).with_name("sha256sums.txt").read_text(encoding="utf-8").splitlines()
    return {name: value for value, name in (line.split("  ", 1) for line in lines)}


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="geneval",
            title="GenEval",
            repository="djghosh13/geneval",
            commit="af4902f24d3ca90ebbb446dd9891a59e0f82725f",
            folder="prompts",
            licence="MIT",
            citation="D. Ghosh, H. Hajishirzi, L. Schmidt: GenEval: An Object-Focused Framework for Evaluating "
            "Text-to-Image Alignment. NeurIPS 2023, arXiv:2310.11513",
            prompts=("evaluation_metadata.jsonl",),
            mirror="geneval",
        ),
        Source(
            name="dpg",
            title="DPG-Bench",
            repository="TencentQQGYLab/ELLA",
            commit="3c228f1dc6c4d3cad0a47493816151a419f14db3",
            folder="dpg_bench",
            licence="Apache-2.0",
            citation="X. Hu, R. Wang, Y. Fang, B. Fu, P. Cheng, G. Yu: ELLA: Equip Diffusion Models with LLM for "
            "Enhanced Semantic Alignment. 2024, arXiv:2403.05135",
            prompts=("dpg_bench.csv",),
            mirror="dpg",
            git_blobs={"dpg_bench.csv": "98457fc9901943f51ff9a30367250fc292533bed"},
        ),
        Source(
            name="tiif",
            title="TIIF-Bench",
            repository="A113N-W3I/TIIF-Bench",
            commit="3aae7504d2546516eaec2fea82fde9ae445dfea3",
            folder="data",
            licence=None,
            citation="X. Wei, J. Zhang, Z. Wang, H. Wei, Z. Guo, L. Zhang: TIIF-Bench: How Does Your T2I Model Follow "
            "Your Instructions? 2025, arXiv:2506.02161",
            prompts=("testmini.jsonl", "test.jsonl"),
            mirror="tiif",
            packs={
                "testmini.jsonl": ("testmini_prompts", "testmini_eval_prompts"),
                "test.jsonl": ("test_prompts", "test_eval_prompts"),
            },
        ),
        Source(
            name="densealign",
            title="DenseAlignBench",
            repository="roooobotx/prompt_echo",
            commit="6c8a934bf97682a25e25969a0a8fbe73443b4fe5",
            folder="",
            licence="Apache-2.0",
            citation="PromptEcho: Annotation-Free Reward from Vision-Language Models for Text-to-Image Reinforcement "
            "Learning. arXiv:2604.12652",
            prompts=("metadata.jsonl",),
            mirror="densealign",
        ),
        Source(
            name="longtext",
            title="LongText-Bench",
            repository="X-Omni-Team/X-Omni",
            commit="2b8237bb3789638c290eeda3e83ed81bd3652c3b",
            folder="textbench",
            licence="Apache-2.0",
            citation="Z. Geng et al.: X-Omni: Reinforcement Learning Makes Discrete Autoregressive Image Generative "
            "Models Great Again. 2025, arXiv:2507.22058",
            prompts=("text_prompts.jsonl",),
            mirror="longtext_bench",
        ),
    )
}


def find_sources(names: list[str]) -> list[Source]:
    """The named sets, or all; a set's folder in a mirror is a name of it too.

    Raises:
        ConfigError: a name is unknown.
    """
    by_name = {alias: source for source in SOURCES.values() for alias in (source.mirror, source.name)}
    for name in names:
        if name not in by_name:
            raise ConfigError(f"{name}: no such prompt set; known: {', '.join(SOURCES)}")
    wanted = {by_name[name].name for name in names}
    return [source for source in SOURCES.values() if not names or source.name in wanted]
