"""GenEval (Ghosh et al., 2023, arXiv 2310.11513): prompts, image layout and the official scoring rules."""

from pathlib import Path

from promptecho.config.benchmarks import ORACLE, Backend, Benchmark
from promptecho.config.defaults import CLIP, MASK2FORMER
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="geneval",
    title="GenEval",
    summary="objects, counts, colours and positions, found by a detector",
    layout="promptecho.benchmarks.geneval.layout:GenevalLayout",
    scorer="promptecho.benchmarks.geneval.scorer:GenevalScorer",
    backends=(
        ORACLE,
        Backend(
            name="mask2former",
            summary="Mask2Former with CLIP",
            environment="detect",
            uses_gpu=True,
            models=((MASK2FORMER, "transformers"), (CLIP, "transformers")),
        ),
    ),
    archives=True,
    table="promptecho.benchmarks.geneval.table:GENEVAL",
    shapes="promptecho.benchmarks.geneval.shapes:write_geneval_prompts",
    golden="promptecho.benchmarks.geneval.golden:CHECKS",
    sources=(
        Source(
            name="geneval",
            title="GenEval",
            repository="djghosh13/geneval",
            commit="af4902f24d3ca90ebbb446dd9891a59e0f82725f",
            folder="prompts",
            licence="MIT",
            citation="D. Ghosh, H. Hajishirzi, L. Schmidt: GenEval: An Object-Focused Framework for Evaluating "
            "Text-to-Image Alignment. NeurIPS 2023, arXiv:2310.11513",
            prompts={"evaluation_metadata.jsonl": 553},
            mirror="geneval",
            sums=Path(__file__).with_name("sha256sums.txt"),
        ),
    ),
)
