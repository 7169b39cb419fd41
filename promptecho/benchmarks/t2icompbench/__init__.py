"""T2I-CompBench++ (Huang et al., 2023 and 2025, arXiv 2307.06350): compositions, category by category.

Of its eight categories those are here whose perception can be had: attributes by BLIP-VQA and actions by CLIPScore.
Those that need boxes (left and right, numbers) have their rules, and boxes in the embedded world alone; depth and the
mixture of all are left out (docs/benchmarks.md#t2i-compbench).
"""

from pathlib import Path

from promptecho.benchmarks.t2icompbench.defaults import BLIP_VQA, CLIP_SCORE
from promptecho.config.benchmarks import ORACLE, Backend, Benchmark, Curve
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="t2icompbench",
    title="T2I-CompBench++",
    summary="attributes, places, numbers and actions, each category by its own measure",
    layout="promptecho.benchmarks.t2icompbench.layout:CompbenchLayout",
    scorer="promptecho.benchmarks.t2icompbench.scorer:CompbenchScorer",
    backends=(
        ORACLE,
        Backend(
            name="blip",
            summary="BLIP-VQA for attributes, CLIP for actions",
            environment="detect",
            uses_gpu=True,
            models=((BLIP_VQA, "transformers"), (CLIP_SCORE, "transformers")),
        ),
    ),
    archives=True,
    table="promptecho.benchmarks.t2icompbench.table:compbench_kind",
    curves=(Curve(title="mean of the categories (%)"),),
    shapes="promptecho.benchmarks.t2icompbench.shapes:write_compbench_prompts",
    golden="promptecho.benchmarks.t2icompbench.golden:CHECKS",
    sources=(
        Source(
            name="t2icompbench",
            title="T2I-CompBench++",
            repository="Karine-Huang/T2I-CompBench",
            commit="1b7094991a57f3c22abdd4f6e8ba6c1a15517073",
            folder="examples/dataset",
            licence="MIT",
            citation="K. Huang, C. Duan, K. Sun, E. Xie, Z. Li, X. Liu: T2I-CompBench++: An Enhanced and Comprehensive "
            "Benchmark for Compositional Text-to-Image Generation. TPAMI 2025, arXiv:2307.06350",
            prompts={"validation.jsonl": 1200},
            make="promptecho.benchmarks.t2icompbench.official:pack_set",
            mirror="t2icompbench",
            sums=Path(__file__).with_name("sha256sums.txt"),
            as_text=True,
        ),
    ),
)
