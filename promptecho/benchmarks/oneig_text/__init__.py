"""OneIG-Bench's text part (Chang et al., 2025, arXiv 2506.07977): texts read in the image, by edits and words."""

from promptecho.benchmarks.longtext.defaults import MODEL
from promptecho.config.benchmarks import GALLERY, JUDGE, Backend, Benchmark, Curve

BENCHMARK = Benchmark(
    name="oneig_text",
    title="OneIG-Bench text",
    summary="texts read in the image, by edits and words",
    images_of="textocr",
    shares=("longtext",),
    scorer="promptecho.benchmarks.oneig_text.scorer:OneIgTextScorer",
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
    table="promptecho.benchmarks.oneig_text.table:oneig_text_kind",
    curves=(Curve(title="text score by image (%)"),),
    golden="promptecho.benchmarks.oneig_text.golden:CHECKS",
)
