"""Videos of moving shapes: a video is right when its frames show the caption's objects, and these go where it says."""

from promptecho.config.benchmarks import MOVING, Benchmark

BENCHMARK = Benchmark(
    name="moving_shapes",
    title="Moving shapes",
    summary="whether a video shows what its caption claims: the objects in every frame, and where they go",
    layout="promptecho.benchmarks.captions.layout:CaptionsLayout",
    scorer="promptecho.benchmarks.moving_shapes.scorer:MovingScorer",
    backends=(MOVING,),
    shares=("captions",),
    shapes="promptecho.benchmarks.moving_shapes.prompts:write_moving_prompts",
    takes_heldout=True,
    archives=True,
    table="promptecho.benchmarks.moving_shapes.table:MOVING",
)
