"""A plan on the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from promptecho.phases import MEASURED
from promptecho.plan.evaluation import Evaluation
from promptecho.plan.memory import GpuMemory
from promptecho.plan.result import NO_VLM, Plan, RunPlan
from promptecho.plan.settings import Settings
from promptecho.screen import screen

WHERE = {"trainer": "each GPU that trains", "reward server": "each GPU that serves rewards", "generation": "its GPU"}
WHERE |= {"captioning": "its GPU"}


def show(plan: Plan) -> None:
    """Print to stdout."""
    screen().print(page(plan))


def page(plan: Plan) -> RenderableType:
    """All of a plan."""
    gpu, cluster = plan.cluster.gpu, plan.cluster
    title = f"{plan.experiment} on {cluster.nodes} x {cluster.per_node} {gpu.name} ({gpu.memory_gb:g} GB): an estimate"
    parts: list[RenderableType] = [Text(title, style="bold")]
    for run in plan.runs:
        parts += [Text(), *_run(run, plan)]
    if plan.captions is not None:
        parts += [Text(), Text("captions, one GPU for each shard", style="bold"), _captions(plan)]
    if plan.evaluations:
        parts += [Text(), Text("images for evaluation, one GPU for each shard", style="bold"), _evaluations(plan)]
    parts += [Text(), *_assumptions(plan)]
    return Group(*parts)


def _run(run: RunPlan, plan: Plan) -> list[RenderableType]:
    told = f"{run.iterations} iterations, {run.hours:.1f} hours, {run.hours * run.gpus:,.0f} GPU-hours"
    shared = f" over {run.sharing} GPUs" if run.sharing > 1 else ""
    if run.gather == "phase" and run.sharing > 1:
        shared += f", gathered once for each {'batch of images' if run.placement == 'dedicated' else 'reward phase'}"
    vlm = f"reward VLM {run.models['reward VLM']}, {run.placement}{shared}; ZeRO {run.zero_stage}"
    if run.models["reward VLM"] == NO_VLM:
        vlm = f"rewards without a VLM; ZeRO {run.zero_stage}"
    if run.host_bytes:
        vlm += f"; {_gb(run.host_bytes)} GB of each node's host memory, pinned"
    parts: list[RenderableType] = [Text.assemble((run.run, "bold cyan"), ": ", (told, "bold")), _indented(Text(vlm))]
    parts += [_indented(_held(memory)) for memory in run.memory]
    parts.append(_indented(_phases(run)))
    parts.append(_indented(_modes(run)))
    parts += [_indented(_verdict(memory, plan)) for memory in run.memory]
    if run.usual_size is not None:
        parts.append(_indented(_usual_size(run)))
    return parts


def _usual_size(run: RunPlan) -> Text:
    """What training on images of other sizes than the model's saves."""
    assert run.usual_size is not None, "there are other sizes"
    usual, (other, *sizes) = run.usual_size, (f"{h} x {w}" for h, w in (run.usual_size.size, *run.sizes))
    several = f"{len(sizes)} sizes (height x width), " if len(sizes) > 1 else ""
    peak = max(memory.peak for memory in run.memory)
    return Text(
        f"trains on images of {several}{', '.join(sizes)}; on {other}, as models.t2i has them, an iteration would take "
        f"{_seconds(usual.seconds)} s in place of {_seconds(run.seconds)} and the peak be {_gb(usual.peak)} GB in "
        f"place of {_gb(peak)}"
    )


def _held(memory: GpuMemory) -> Text:
    return Text(f"{WHERE[memory.who]} holds {_gb(memory.held_bytes)} GB: {_parts(memory.held, memory.peak)}")


def _phases(run: RunPlan) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("phase")
    for column in ("GB", "PFLOP", "seconds"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("bound by", no_wrap=True)
    table.add_column("adds to what is held, GB")
    for phase in run.phases:
        memory = next((one for one in run.memory if phase.name in one.phases), None)
        peak = memory is not None and phase.name == memory.peak_phase
        size = "" if memory is None else _gb(memory.bytes_in(phase.name))
        adds = "" if memory is None else _parts(memory.phases[phase.name], memory.peak)
        table.add_row(
            phase.name, Text(size, style="bold" if peak else ""), _pflop(phase.flops) if phase.flops else "",
            _seconds(phase.seconds), phase.bound, adds,
        )  # fmt: skip
    if run.heldout_seconds:
        table.add_row("held out", "", "", _seconds(run.heldout_seconds), "", Text("on average", style="dim"))
    flops = sum(phase.flops for phase in run.phases)
    table.add_row("iteration", "", _pflop(flops), _seconds(run.seconds), "", "", style="bold")
    return table


def _modes(run: RunPlan) -> Text:
    """Each mode of activation checkpointing; the planned one is bold."""
    text = Text("activation checkpointing, GB in update and FLOPs computed again: ")
    for index, one in enumerate(run.modes):
        told = f"{one.mode} {_gb(one.bytes)}"
        told += f" +{100 * one.again / run.modes[0].flops:.0f}%" if one.again else ""
        text.append(", " if index else "").append(told, style="bold" if one.mode == run.checkpointing else "")
    return text


def _verdict(memory: GpuMemory, plan: Plan) -> Text:
    gpu, reserve = plan.cluster.gpu, plan.settings.reserve_gb
    limit = gpu.memory_gb - reserve
    fits = memory.peak <= 1e9 * limit
    room = f"of {limit:g} ({gpu.memory_gb:g} less {reserve:g} in reserve)"
    return Text.assemble(
        f"peak on {WHERE[memory.who]}: {_gb(memory.peak)} GB in {memory.peak_phase}, {room}: ",
        ("fits", "bold green") if fits else ("does not fit", "bold red"),
    )


def _captions(plan: Plan) -> RenderableType:
    found = plan.captions
    assert found is not None
    rate = 3600 * found.images_per_s
    width, height = found.size
    told = f"images of {width}x{height} pixels, {found.image_tokens} tokens with the question"
    speed = f"{found.images_per_s:.2g} images/s on a GPU, {100_000 / rate:,.1f} GPU-hours for 100,000 of them"
    if found.images is None:
        whole = "how many there are is not known here (--images)"
    else:
        hours = f"{found.hours:.2f} hours, {found.gpu_hours:,.1f} GPU-hours"
        whole = f"{found.images:,} images in {found.shards} shards: {hours}"
    parts = [Text(whole), Text(told), Text(speed), _held(found.memory), _verdict(found.memory, plan)]
    if found.by_server:
        parts.append(Text("all of this as transformers captions; what captions.server takes is not estimated", "dim"))
    return _indented(Group(*parts))


def _evaluations(plan: Plan) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("image set", no_wrap=True)
    for column in ("images", "PFLOP", "shards", "hours", "GPU-h", "times", "all GPU-h", "GB"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in plan.evaluations:
        table.add_row(row.name, *_evaluation(row), _gb(plan.generation[row.name].peak))
    legend = "times: checkpoints of all runs, and the base model, that the set is made from; GB: peak"
    return _indented(Group(table, Text(legend, style="dim")))


def _evaluation(row: Evaluation) -> list[str]:
    if row.images is None:
        return ["unknown", "", str(row.shards), "", "", str(row.checkpoints), ""]
    assert row.flops is not None and row.hours is not None and row.gpu_hours is not None, "known where images are"
    return [
        f"{row.images:,}", _pflop(row.flops), str(row.shards), f"{row.hours:.2f}", f"{row.gpu_hours:,.1f}",
        str(row.checkpoints), f"{row.gpu_hours * row.checkpoints:,.1f}",
    ]  # fmt: skip


def _assumptions(plan: Plan) -> list[RenderableType]:
    a, gpu = plan.settings, plan.cluster.gpu
    lines = [
        "Nothing here was measured. Sizes, FLOPs and activations: from the code, run without values. GB are 1e9 bytes.",
        f"Datasheet: {gpu.bfloat16:g} TFLOP/s bfloat16, {gpu.tf32:g} TF32, {gpu.float32:g} float32, memory "
        f"{gpu.memory_gb_s:g} GB/s, link {gpu.link_gb_s:g}, host {gpu.host_gb_s:g} ({gpu.source}).",
        f"Assumed: {_mfu(a)} of these FLOP/s (--mfu), {a.transfer:.0%} of these bandwidths (--transfer), "
        f"{a.network_gb_s:g} GB/s between nodes (--network-gb-s), {a.reserve_gb:g} GB in reserve (--reserve-gb), "
        f"prompts of {a.prompt_tokens} tokens (--prompt-tokens), replies of {a.reply_tokens} "
        "(--reply-tokens).",
        "Prompts' embeddings are kept on disk (models.prompt_cache)." if a.prompt_cache
        else "Prompts are encoded in every iteration (models.prompt_cache: null).",
        f"Not in it: {', '.join(['loading models, saving, scoring, queues', *plan.not_counted])}.",
    ]  # fmt: skip
    return [Text(line, style="dim") for line in lines]


def _mfu(settings: Settings) -> str:
    """The shares of the datasheet: those that were measured, and what stands for the others."""
    if not settings.measured:
        return f"{settings.mfu:.0%}"
    told = ", ".join(f"{phase} {share:.0%}" for phase, share in settings.measured.items())
    others = f", else {settings.mfu:.0%}" if set(settings.measured) != set(MEASURED) else ""
    return f"as measured, {told}{others}"


def _indented(what: RenderableType) -> Padding:
    return Padding(what, (0, 0, 0, 2))


def _parts(sizes: dict[str, int], whole: int) -> str:
    """Sizes by name, the largest first, without those that make no difference."""
    told = sorted(sizes.items(), key=lambda item: -item[1])
    return ", ".join(f"{part} {_gb(size)}" for part, size in told if size > 0.001 * whole)


def _pflop(flops: float) -> str:
    return f"{flops / 1e15:,.0f}" if flops >= 1e18 else f"{flops / 1e15:.4g}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f}" if size >= 5e7 else f"{size / 1e9:.2g}"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f}" if seconds >= 0.05 else f"{seconds:.2g}"
