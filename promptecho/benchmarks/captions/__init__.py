"""Captions as a benchmark: an image is right when it shows what its caption claims. Folders as DenseAlignBench's."""

from promptecho.config.benchmarks import GALLERY, ORACLE, Benchmark

BENCHMARK = Benchmark(
    name="captions",
    title="Captions",
    summary="whether an image shows what its caption claims, and nothing else",
    layout="promptecho.benchmarks.captions.layout:CaptionsLayout",
    scorer="promptecho.benchmarks.captions.scorer:CaptionsScorer",
    backends=(ORACLE, GALLERY),
    takes_heldout=True,
    archives=True,
    table="promptecho.benchmarks.captions.table:captions_kind",
    instead_of_oracle="For images of real models take scorer: densealign with backend: judge on the same image set",
)
