"""LongText-Bench (X-Omni, Geng et al., 2025, arXiv 2507.22058): how much of a long text a reader finds in the image."""

from promptecho.benchmarks.longtext.defaults import MODEL
from promptecho.config.benchmarks import GALLERY, JUDGE, Backend, Benchmark, Curve

BENCHMARK = Benchmark(
    name="longtext",
    title="LongText-Bench",
    summary="words (in Chinese characters) of long texts that a reader finds in the image",
    images_of="textocr",  # whose folder has the prompts, too: both look at the same images
    scorer="promptecho.benchmarks.longtext.scorer:LongTextScorer",
    backends=(
        Backend(
            name="vlm",
            summary="a vision-language model in the job",
            environment="detect",
            uses_gpu=True,
            models=((MODEL, "transformers"),),
        ),
        Backend(name="rapidocr", summary="RapidOCR", environment="ocr"),
        JUDGE,
        GALLERY,
    ),
    modes=("official", "fixed"),
    archives=True,
    table="promptecho.benchmarks.longtext.table:longtext_kind",
    curves=(Curve(title="text found (%)"),),
    verdicts="promptecho.benchmarks.longtext.scorer:verdicts",
    golden="promptecho.benchmarks.longtext.golden:CHECKS",
)
