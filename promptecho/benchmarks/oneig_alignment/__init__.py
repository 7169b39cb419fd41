"""OneIG-Bench's alignment part (Chang et al., 2025, arXiv 2506.07977), and the files of both parts."""

from promptecho.benchmarks.oneig_alignment.rules import MODEL
from promptecho.config.benchmarks import GALLERY, JUDGE, ORACLE, Backend, Benchmark
from promptecho.config.prompt_sources import Source

_CLASSES = ("anime", "human", "object", "anime_zh", "human_zh", "object_zh", "multilingualism_zh")

BENCHMARK = Benchmark(
    name="oneig_alignment",
    title="OneIG-Bench alignment",
    summary="what a prompt says, by yes/no questions that depend on each other, of portraits, objects and styles",
    images_of="dpg",
    shares=("longtext", "textocr"),
    scorer="promptecho.benchmarks.oneig_alignment.scorer:OneIgAlignmentScorer",
    backends=(
        ORACLE,
        Backend(
            name="vlm",
            summary="a vision-language model in the job",
            environment="detect",
            uses_gpu=True,
            models=((MODEL, "transformers"),),
        ),
        JUDGE,
        GALLERY,
    ),
    questions_per_call=True,
    archives=True,
    table="promptecho.benchmarks.oneig_alignment.table:alignment_kind",
    golden="promptecho.benchmarks.oneig_alignment.golden:CHECKS",
    sources=(
        Source(
            name="oneig",
            title="OneIG-Bench",
            repository="OneIG-Bench/OneIG-Benchmark",
            commit="41b49831e79e6dde5323618c164da1c4cf0f699d",
            licence="CC BY-NC 4.0 (not for commercial use)",
            citation="J. Chang et al.: OneIG-Bench: Omni-dimensional Nuanced Evaluation for Image Generation. 2025, "
            "arXiv:2506.07977",
            prompts={"text.jsonl": 200, "text_zh.jsonl": 200, "alignment.csv": 695, "alignment_zh.csv": 895},
            make="promptecho.benchmarks.oneig_alignment.prompt_files:pack_set",
            id_column="item_id",
            mirror="oneig",
            by_commit=(
                "OneIG-Bench.csv",
                "OneIG-Bench-ZH.csv",
                "scripts/text/text_content.csv",
                "scripts/text/text_content_zh.csv",
                *(f"scripts/alignment/Q_D/{name}.json" for name in _CLASSES),
            ),
        ),
    ),
)
