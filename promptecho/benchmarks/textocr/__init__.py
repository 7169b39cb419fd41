"""Text rendering: does an image show the text that its prompt asks for, character by character?"""

from pathlib import Path

from promptecho.config.benchmarks import GALLERY, JUDGE, Backend, Benchmark, Curve
from promptecho.config.prompt_sources import Source

BENCHMARK = Benchmark(
    name="textocr",
    title="Text rendering",
    summary="text in images, character by character",
    layout="promptecho.benchmarks.textocr.layout:TextOcrLayout",
    scorer="promptecho.benchmarks.textocr.scorer:TextOcrScorer",
    backends=(Backend(name="rapidocr", summary="RapidOCR", environment="ocr"), JUDGE, GALLERY),
    archives=True,
    table="promptecho.benchmarks.textocr.table:textocr_kind",
    curves=(Curve(title="images with all text right (%)"),),
    shapes="promptecho.benchmarks.textocr.shapes:write_textocr_prompts",
    gallery="promptecho.benchmarks.textocr.gallery:write_poster_prompts",
    commands={"labels": "promptecho.benchmarks.textocr.command:labels"},
    sources=(
        Source(
            name="longtext",
            title="LongText-Bench",
            repository="X-Omni-Team/X-Omni",
            commit="2b8237bb3789638c290eeda3e83ed81bd3652c3b",
            folder="textbench",
            licence="Apache-2.0",
            citation="Z. Geng et al.: X-Omni: Reinforcement Learning Makes Discrete Autoregressive Image Generative "
            "Models Great Again. 2025, arXiv:2507.22058",
            prompts={"text_prompts.jsonl": 160, "text_prompts_zh.jsonl": 160},
            mirror="longtext_bench",
            sums=Path(__file__).with_name("sha256sums.txt"),
        ),
    ),
)
