"""TIIF-Bench (Wei et al., 2025, arXiv 2506.02161): prompts, image layout, the official rules, judges' answers."""

from pathlib import Path

from promptecho.benchmarks.tiif.attributes import LENGTHS, ROUNDING
from promptecho.config.benchmarks import GALLERY, JUDGE, ORACLE, Benchmark, Curve
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="tiif",
    title="TIIF-Bench",
    summary="instructions in a short and a long wording, by yes/no questions",
    layout="promptecho.benchmarks.tiif.layout:TiifLayout",
    scorer="promptecho.benchmarks.tiif.scorer:TiifScorer",
    backends=(ORACLE, JUDGE, GALLERY),
    modes=("official", "fixed"),
    images_per_prompt=(1, "TIIF-Bench has one image per description"),
    texts_per_prompt=2,  # the short and the long description
    message="text, then image",
    archives=True,
    table="promptecho.benchmarks.tiif.table:TIIF",
    curves=tuple(
        Curve(
            key=f"{length}.overall",
            title=f"overall, {length} prompts (%)",
            estimate="promptecho.benchmarks.tiif.table:overall",
            tolerance=ROUNDING,
        )
        for length in LENGTHS
    ),
    verdicts="promptecho.benchmarks.tiif.table:verdicts",
    image_of="promptecho.benchmarks.tiif.table:image_of",
    shapes="promptecho.benchmarks.tiif.shapes:write_tiif_prompts",
    gallery="promptecho.benchmarks.tiif.gallery:write_tiif_prompts",
    golden="promptecho.benchmarks.tiif.golden:CHECKS",
    sources=(
        Source(
            name="tiif",
            title="TIIF-Bench",
            repository="A113N-W3I/TIIF-Bench",
            commit="3aae7504d2546516eaec2fea82fde9ae445dfea3",
            folder="data",
            licence=None,
            citation="X. Wei, J. Zhang, Z. Wang, H. Wei, Z. Guo, L. Zhang: TIIF-Bench: How Does Your T2I Model Follow "
            "Your Instructions? 2025, arXiv:2506.02161",
            prompts={"testmini.jsonl": 277, "test.jsonl": None},
            make="promptecho.benchmarks.tiif.prompts:pack_set",
            mirror="tiif",
            sums=Path(__file__).with_name("sha256sums.txt"),
        ),
    ),
)
