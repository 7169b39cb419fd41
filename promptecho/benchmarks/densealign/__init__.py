"""DenseAlignBench: pairs of images of one caption, one of each model; a judge tells which follows it better."""

from pathlib import Path

from promptecho.config.benchmarks import GALLERY, JUDGE, ORACLE, Benchmark, Curve
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="densealign",
    title="DenseAlignBench",
    summary="pairs: the image of a run against that of `baseline`, which follows its caption better",
    images_of="captions",
    scorer="promptecho.benchmarks.densealign.scorer:DenseAlignScorer",
    backends=(ORACLE, JUDGE, GALLERY),
    pairwise=True,
    message="text, then each image after its label, as jpeg of quality 95",
    archives=True,
    table="promptecho.benchmarks.densealign.table:DENSEALIGN",
    curves=(Curve(title="net preference over the baseline (points)"),),
    sources=(
        Source(
            name="densealign",
            title="DenseAlignBench",
            repository="roooobotx/prompt_echo",
            commit="6c8a934bf97682a25e25969a0a8fbe73443b4fe5",
            licence="Apache-2.0",
            citation="PromptEcho: Annotation-Free Reward from Vision-Language Models for Text-to-Image Reinforcement "
            "Learning. arXiv:2604.12652",
            prompts={"metadata.jsonl": 2000},
            mirror="densealign",
            sums=Path(__file__).with_name("sha256sums.txt"),
        ),
    ),
)
