"""GenEval 2 (Kamath et al., 2025, arXiv 2512.16853): prompts in atoms, and Soft-TIFA, their score."""

from pathlib import Path

from promptecho.benchmarks.geneval2.rules import MODEL
from promptecho.config.benchmarks import ORACLE, Backend, Benchmark, Curve
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="geneval2",
    title="GenEval 2",
    summary="each thing that a prompt says, by the probability of the right answer about it (Soft-TIFA)",
    layout="promptecho.benchmarks.geneval2.layout:Geneval2Layout",
    scorer="promptecho.benchmarks.geneval2.scorer:Geneval2Scorer",
    backends=(
        ORACLE,
        Backend(
            name="vlm",
            summary="the probability of a vision-language model's first token",
            environment="detect",
            uses_gpu=True,
            models=((MODEL, "transformers"),),
        ),
    ),
    archives=True,
    table="promptecho.benchmarks.geneval2.table:geneval2_kind",
    curves=(Curve(title="Soft-TIFA GM (%)"),),
    shapes="promptecho.benchmarks.geneval2.shapes:write_geneval2_prompts",
    golden="promptecho.benchmarks.geneval2.golden:CHECKS",
    sources=(
        Source(
            name="geneval2",
            title="GenEval 2",
            repository="facebookresearch/GenEval2",
            commit="a6e82d2289e8d418f27f0adee77908b07060eea3",
            licence="CC BY-NC 4.0 (not for commercial use)",
            citation="A. Kamath, K.-W. Chang, R. Krishna, L. Zettlemoyer, Y. Hu, M. Ghazvininejad: GenEval 2: "
            "Addressing Benchmark Drift in Text-to-Image Evaluation. 2025, arXiv:2512.16853",
            prompts={"geneval2_data.jsonl": 800},
            mirror="geneval2",
            sums=Path(__file__).with_name("sha256sums.txt"),
        ),
    ),
)
