"""UniGenBench++ (Wang et al., 2025, arXiv 2510.18701): prompts with test points, each judged 0 or 1 by a model."""

from promptecho.benchmarks.unigenbench.dimensions import FILES
from promptecho.config.benchmarks import GALLERY, JUDGE, ORACLE, Benchmark, Curve
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="unigenbench",
    title="UniGenBench++",
    summary="test points of ten dimensions, in English or Chinese, short or long, each judged 0 or 1",
    layout="promptecho.benchmarks.unigenbench.layout:UnigenbenchLayout",
    scorer="promptecho.benchmarks.unigenbench.scorer:UnigenbenchScorer",
    backends=(ORACLE, JUDGE, GALLERY),
    message="the image, as jpeg of quality 95, then text",
    archives=True,
    table="promptecho.benchmarks.unigenbench.table:unigenbench_kind",
    curves=(
        Curve(
            title="overall, mean of the dimensions (%)",
            estimate="promptecho.benchmarks.unigenbench.table:overall",
        ),
    ),
    verdicts="promptecho.benchmarks.unigenbench.scorer:verdicts",
    shapes="promptecho.benchmarks.unigenbench.shapes:write_shapes_prompts",
    gallery="promptecho.benchmarks.unigenbench.shapes:write_gallery_prompts",
    golden="promptecho.benchmarks.unigenbench.golden:CHECKS",
    sources=(
        Source(
            name="unigenbench",
            title="UniGenBench++",
            repository="CodeGoat24/UniGenBench",
            commit="06d5f5ef84ada0304913080ceaa3b0f5d400b694",
            licence=None,
            citation="Y. Wang, Z. Li, Y. Zang, J. Bu, Y. Zhou, Y. Xin, J. He, C. Wang, Q. Lu, C. Jin and others: "
            "UniGenBench++: A Unified Semantic Evaluation Benchmark for Text-to-Image Generation. 2025, "
            "arXiv:2510.18701",
            prompts=FILES,
            make="promptecho.benchmarks.unigenbench.official:make_set",
            mirror="unigenbench",
            by_commit=(
                *(f"data/{name}" for name in FILES),
                "eval/qwenvl_72b_en_eval.py",
                "eval/qwenvl_72b_zh_eval.py",
            ),
            id_column="index",
        ),
    ),
)
