"""DPG-Bench: dense prompts, each with yes/no questions that depend on each other. Images in grids, one per prompt."""

from promptecho.config.benchmarks import GALLERY, JUDGE, ORACLE, Backend, Benchmark
from promptecho.config.defaults import MPLUG
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="dpg",
    title="DPG-Bench",
    summary="dense prompts, by yes/no questions that depend on each other",
    layout="promptecho.benchmarks.dpg.layout:DpgLayout",
    scorer="promptecho.benchmarks.dpg.scorer:DpgScorer",
    backends=(
        ORACLE,
        Backend(
            name="mplug",
            summary="mPLUG, the official answerer",
            environment="mplug",
            uses_gpu=True,
            models=((MPLUG, "modelscope"),),
            unproved="nobody has brought it to run for this project: ModelScope's pipeline imports fairseq "
            "(docs/environments.md#mplug)",
            instead="write backend: judge and a judge, which is asked the same questions and makes another metric",
        ),
        JUDGE,
        GALLERY,
    ),
    modes=("official", "fixed"),
    questions_per_call=True,
    square_images="DPG-Bench's grids have square cells",
    archives=True,
    unpacked="promptecho.benchmarks.dpg.layout:compose_pictures",
    table="promptecho.benchmarks.dpg.table:DPG",
    shapes="promptecho.benchmarks.dpg.shapes:write_dpg_questions",
    gallery="promptecho.benchmarks.dpg.gallery:write_dpg_questions",
    golden="promptecho.benchmarks.dpg.golden:CHECKS",
    sources=(
        Source(
            name="dpg",
            title="DPG-Bench",
            repository="TencentQQGYLab/ELLA",
            commit="3c228f1dc6c4d3cad0a47493816151a419f14db3",
            folder="dpg_bench",
            licence="Apache-2.0",
            citation="X. Hu, R. Wang, Y. Fang, B. Fu, P. Cheng, G. Yu: ELLA: Equip Diffusion Models with LLM for "
            "Enhanced Semantic Alignment. 2024, arXiv:2403.05135",
            prompts={"dpg_bench.csv": 1065},
            id_column="item_id",
            mirror="dpg",
            git_blobs={"dpg_bench.csv": "98457fc9901943f51ff9a30367250fc292533bed"},
        ),
    ),
)
