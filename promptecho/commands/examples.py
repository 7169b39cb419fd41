"""Examples of every sub-command, shown below its help. Tests run or parse each of them as it stands here.

They are about the embedded experiment after `make demo`, so that they can be pasted, and about the paper's experiments
where a model or a judge of real size is meant. Lines that begin with # say what the next one is for.
"""

from __future__ import annotations

import re
import textwrap

import typer

EXAMPLES: dict[str, tuple[str, ...]] = {
    "caption list": (
        "# which images would be captioned, and what else lies there:",
        "promptecho caption list --images results/shapes/captions/images --out images.jsonl",
    ),
    "caption shard": (
        "promptecho caption shard --vlm shapes --images results/shapes/captions/images --max-new-tokens 48"
        " --out captions.h5 --work work",
        "# the third of four shards, with model and settings of an experiment:",
        "promptecho caption shard --config config/experiments/shapes.yaml --images results/shapes/captions/images"
        " --shard 1 --out 00001.h5 --work work/1",
    ),
    "caption merge": (
        "promptecho caption merge results/shapes/captions/shards/*.h5 --config config/experiments/shapes.yaml"
        " --out captions.h5 --heldout-out heldout.jsonl",
    ),
    "caption prompts": (
        "promptecho caption prompts --prompts results/shapes/captions/heldout.jsonl --heldout 5 --out captions.h5"
        " --heldout-out heldout.jsonl",
    ),
    "caption sizes": (
        "promptecho caption sizes --captions results/shapes/captions/captions.h5"
        " --images results/shapes/captions/images --out image_sizes.jsonl",
    ),
    "train": (
        "# first of all: do several processes here train as one does?",
        "promptecho train --smoke",
        "# the same with the models of an experiment:",
        "promptecho train --smoke --config config/experiments/zimage.yaml",
        "# what the runs of an experiment do (Ctrl-C leaves the view only):",
        "promptecho train --watch results/shapes",
        "# one run to its checkpoint 10; the workflow calls it so:",
        "promptecho train --config config/experiments/shapes.yaml --run promptecho-s1 --to 10"
        " --captions results/shapes/captions/captions.h5 --heldout results/shapes/captions/heldout.jsonl"
        " --out trained/10 --work trained/work",
        "# and from there on to checkpoint 20:",
        "promptecho train --config config/experiments/shapes.yaml --run promptecho-s1 --to 20 --resume trained/10"
        " --captions results/shapes/captions/captions.h5 --heldout results/shapes/captions/heldout.jsonl"
        " --out trained/20 --work trained/work",
    ),
    "generate": (
        "promptecho generate --config config/experiments/shapes.yaml --run promptecho-s1 --step 20"
        " --adapter results/shapes/runs/promptecho-s1/20/adapter --image-set geneval"
        " --prompts results/shapes/prompts/geneval/metadata.jsonl --out images --work work",
    ),
    "judge": (
        "# what it would cost, before anything is asked:",
        "promptecho judge --estimate --config config/experiments/zimage.yaml --benchmark tiif"
        " --images results/zimage/images/base/0/tiif --answers results/zimage/judges/gemini",
    ),
    "score": (
        "promptecho score --config config/experiments/shapes.yaml --benchmark geneval"
        " --images results/shapes/images/base/0/geneval --experiment shapes --run base --step 0 --out 0.json",
    ),
    "guard": (
        "# EXPERIMENT.yaml has guards: [{name: echo}], for instance:",
        "promptecho guard --config EXPERIMENT.yaml --name echo --images results/shapes/images/base/0/geneval"
        " --run base --step 0 --work guard-work --out 0.json",
    ),
    "tables": (
        "promptecho tables --table geneval --scores results/shapes --print",
        "promptecho tables --paper table4 --scores results/zimage results/qwenimage --print",
    ),
    "status": (
        "# all experiments, once and live:",
        "promptecho status",
        "promptecho status --watch",
        "# one of them, as a page for a browser and for a script:",
        "promptecho status results/shapes --html status.html",
        "promptecho status results/shapes --json",
    ),
    "stop": (
        "# the training ends after its iteration; Snakemake goes on from there when it is started again:",
        "promptecho stop results/shapes --run promptecho-s1",
        "# not after all:",
        "promptecho stop results/shapes --run promptecho-s1 --undo",
    ),
    "efficiency": ("promptecho efficiency results/shapes",),
    "track": (
        "# rows of finished segments that TensorBoard has not got yet:",
        "promptecho track results/shapes --to tensorboard",
    ),
    "show": (
        "promptecho show results/shapes",
        "# one table without its notes, and a table from anywhere:",
        "promptecho show results/shapes --table heldout --no-notes",
        "promptecho show results/shapes/tables/geneval.json",
    ),
    "figures training": ("promptecho figures training results/shapes --out figures",),
    "figures curves": ("promptecho figures curves results/shapes --benchmark heldout --out figures",),
    "figures samples": (
        "promptecho figures samples results/shapes/images/base/0/geneval results/shapes/images/promptecho-s1/20/geneval"
        " --scores results/shapes/scores/geneval --out samples.png",
    ),
    "figures words": (
        "promptecho figures words results/shapes/images/base/0/heldout results/shapes/images/promptecho-s1/20/heldout"
        " --scores results/shapes/scores/heldout --config config/experiments/shapes.yaml --out words.html",
    ),
    "doctor": (
        "promptecho doctor --config config/experiments/shapes.yaml",
        "# with the cluster's partitions and limits, as a script reads it:",
        "promptecho doctor --config config/experiments/zimage.yaml --profile profiles/slurm --json",
        "# what the nodes see, by one short job for each partition:",
        "promptecho doctor --config config/experiments/zimage.yaml --profile profiles/slurm --probe --only nodes",
    ),
    "plan": (
        "promptecho plan --config config/experiments/zimage.yaml --nodes 4 --gpus-per-node 8 --gpu h100",
        "promptecho plan --config config/experiments/shapes.yaml --gpus-per-node 1 --gpu l40s --json",
    ),
    "bench": (
        "# what this GPU makes of an experiment in ten minutes, the worthiest first:",
        "promptecho bench --config config/experiments/shapes.yaml --report bench.md",
        "# `promptecho plan --mfu bench.json` then takes these shares in place of the assumed ones.",
        "# whole iterations alone, without compiled blocks:",
        "promptecho bench --config config/experiments/shapes.yaml --steps peak,iteration --set compute.compile=off",
    ),
    "upgrade": (
        "promptecho upgrade --dry-run",
        "# one experiment, as a script reads it:",
        "promptecho upgrade results/shapes --json",
        "# GPU-hours of what has never been timed, from a file with the output of `promptecho plan --json`:",
        "promptecho upgrade results/zimage --profile profiles/slurm --plan plan.json",
    ),
    "clean": (
        "promptecho clean --dry-run",
        "# delete what was listed, of one experiment:",
        "promptecho clean results/shapes --yes",
    ),
    "browse": (
        "# all benchmarks of the demo, each on a page to be opened in a browser:",
        "promptecho browse results/shapes",
        "# one of them, to hand on by mail:",
        "promptecho browse results/shapes --benchmark heldout --max-mb 5 --out pages",
    ),
    "reward": (
        'promptecho reward results/shapes/captions/images/0000*.png --vlm shapes --label "A red circle."',
        "# model and question of an experiment:",
        "promptecho reward results/shapes/captions/images/00001.png --config config/experiments/shapes.yaml"
        ' --label "Two blue squares." --json',
        "# a page on which the words of the label are coloured:",
        'promptecho reward results/shapes/captions/images/00001.png --vlm shapes --label "A red circle."'
        " --html words.html",
        "# another reward, here one for which the model writes a score:",
        "promptecho reward PHOTO.jpg --vlm models/Qwen3-VL-8B-Instruct --name inferscore --samples 2"
        ' --label "Two blue squares."',
    ),
    "reward-audit": (
        "# a small one, on scenes that are rendered:",
        "promptecho reward-audit --vlm shapes --captions shapes --n 4 --out reward-audit",
        "# two VLMs and two queries on captions of one's own, with images of the base model and their verdicts:",
        "promptecho reward-audit --vlm models/Qwen3-VL-8B-Instruct --vlm models/Qwen3-VL-2B-Instruct"
        ' --query "Describe this image in detail." --query "What is in this image?" --captions captions.jsonl'
        " --images results/zimage/images/base/0/geneval --scores results/zimage/scores/geneval/base/0.json"
        " --out reward-audit",
    ),
    "list families": (
        "promptecho list families",
        "# with those that an experiment file names in `plugins`:",
        "promptecho list families --config examples/family/shapes-auraflow.yaml --json",
    ),
    "list benchmarks": (
        "promptecho list benchmarks",
        "# those that an experiment file names, too:",
        "promptecho list benchmarks --config examples/benchmark/shapes-tint.yaml",
    ),
    "list judges": (
        "promptecho list judges",
        "# those that an experiment file names, too:",
        "promptecho list judges --config examples/judge/shapes-ollama.yaml --json",
    ),
    "list trackers": ("promptecho list trackers",),
    "list rewards": (
        "promptecho list rewards",
        "# with those that an experiment file names in `plugins`:",
        "promptecho list rewards --config config/experiments/shapes.yaml --json",
    ),
    "models list": ("promptecho models list --config config/experiments/zimage.yaml",),
    "models fetch": (
        "promptecho models fetch --config config/experiments/zimage.yaml --root /shared/models",
        "promptecho models fetch --config config/experiments/zimage.yaml --config config/experiments/qwenimage.yaml"
        " --root /shared/models --endpoint https://mirror.example.org",
    ),
    "models verify": ("promptecho models verify --config config/experiments/zimage.yaml --root /shared/models",),
    "models unstage": ("promptecho models unstage --staging /local/scratch",),
    "envs list": ("promptecho envs list",),
    "envs build": (
        "promptecho envs build --into /shared/promptecho-envs",
        "# one of them, with a certain Python:",
        "promptecho envs build tables --into /shared/promptecho-envs --python python3.11",
    ),
    "envs check": ("promptecho envs check --folder /shared/promptecho-envs",),
    "benchmarks fetch": (
        "promptecho benchmarks fetch --out data/benchmarks",
        "promptecho benchmarks fetch geneval dpg --out data/benchmarks --mirror /shared/benchmarks",
    ),
    "benchmarks verify": ("promptecho benchmarks verify --golden tests/data/golden.tar.xz",),
    "benchmarks heldout": (
        "promptecho benchmarks heldout --captions results/shapes/captions/heldout.jsonl --count 10 --out prompts.jsonl",
    ),
    "benchmarks pack": ("promptecho benchmarks pack results/shapes/images/base/0/geneval",),
    "benchmarks unpack": ("promptecho benchmarks unpack results/shapes/images/base/0/geneval --out geneval-images",),
    "benchmarks labels": (
        "promptecho benchmarks labels --prompts data/prompts.txt --config config/experiments/zimage.yaml --judge gemini"
        " --answers results/zimage/judges/labels --estimate",
    ),
    "try": (
        "# the demo's adapter on a prompt of one's own, with the VLM's reward under each image:",
        'promptecho try "Two blue squares." --adapter results/shapes/runs/promptecho-s1/20 --model shapes --vlm shapes',
    ),
    "publish": (
        "# the demo's last checkpoint as a folder for a model hub:",
        "promptecho publish results/shapes --run promptecho-s1 --license apache-2.0 --out published",
    ),
    "adapter import": (
        "promptecho adapter import --config config/experiments/shapes.yaml"
        " --source results/shapes/runs/promptecho-s1/20/adapter --out imported",
    ),
    "adapter export": (
        "promptecho adapter export results/shapes/runs/promptecho-s1/20",
        "promptecho adapter export results/shapes/runs/promptecho-s1/20 --out shapes_lora.safetensors",
    ),
    "gpus": ("promptecho gpus", "promptecho gpus --json"),
    "gpus run": ("promptecho gpus run --count 1 -- python my_script.py",),
    "config check": ("promptecho config check config/experiments/shapes.yaml config/experiments/zimage.yaml",),
    "config show": ("promptecho config show config/experiments/shapes.yaml",),
    "config new": (
        "promptecho config new mine --t2i Tongyi-MAI/Z-Image --vlm Qwen/Qwen3-VL-8B-Instruct"
        " --judge OpenGVLab/InternVL3-8B-hf --images data/my-images",
        "# hours on one GPU of 48 GB, with models that it names itself:",
        "promptecho config new first --small --images data/first-images",
    ),
    "config docs": ("promptecho config docs --check",),
    "shapes paths": ("promptecho shapes paths --json",),
    "shapes render": ("promptecho shapes render --count 20 --seed 3 --out images",),
    "shapes geneval": ("promptecho shapes geneval --per-tag 12 --seed 5 --out geneval.jsonl",),
    "shapes dpg": ("promptecho shapes dpg --per-tag 12 --seed 6 --out dpg.csv",),
    "shapes tiif": (
        "promptecho shapes tiif --per-tag 6 --seed 7 --out tiif.jsonl",
        "promptecho shapes tiif --per-tag 4 --seed 35 --world gallery --out tiif-gallery.jsonl",
    ),
    "shapes textocr": (
        "promptecho shapes textocr --per-tag 24 --seed 8 --out textocr.jsonl",
        "promptecho shapes textocr --per-tag 40 --seed 9 --world gallery --out posters.jsonl",
    ),
    "shapes geneval2": ("promptecho shapes geneval2 --per-tag 40 --seed 12 --out geneval2.jsonl",),
    "shapes unigenbench": (
        "promptecho shapes unigenbench --per-tag 20 --seed 13 --out points.csv",
        "promptecho shapes unigenbench --per-tag 20 --seed 13 --world gallery --out points-gallery.csv",
    ),
    "shapes t2icompbench": ("promptecho shapes t2icompbench --per-tag 15 --seed 13 --out t2icompbench.jsonl",),
    "shapes moving_shapes": ("promptecho shapes moving_shapes --per-tag 100 --seed 1 --out moving.jsonl",),
    "shapes posters": ("promptecho shapes posters --count 600 --seed 21 --out posters.jsonl",),
    "shapes train-vae": ("promptecho shapes train-vae --out w/vae --log w/vae.jsonl",),
    "shapes train-vlm": ("promptecho shapes train-vlm --out w/vlm --log w/vlm.jsonl",),
    "shapes train-clip": ("promptecho shapes train-clip --out w/clip --log w/clip.jsonl",),
    "shapes train-t2v": ("promptecho shapes train-t2v --out w/t2v --log w/t2v.jsonl",),
    "shapes train-video-vlm": ("promptecho shapes train-video-vlm --out w/vlm --log w/vlm.jsonl",),
    "shapes train-t2i": (
        "promptecho shapes train-t2i --vae w/vae --out w/t2i1 --log w/t2i1.jsonl",
        "promptecho shapes train-t2i --vae w/vae --out w/t2i2 --log w/t2i2.jsonl --init w/t2i1 --steps 1700 --seed 1",
    ),
    "shapes measure": (
        "promptecho shapes measure --world gallery --vae w/vae --pairs 0 --prompts 0",
        "promptecho shapes measure --adapter results/shapes/runs/promptecho-s1/20/adapter --pairs 0 --prompts 20"
        " --grid grid.png",
    ),
}
# Below `promptecho --help`.
FIRST = (
    "promptecho train --watch results/shapes",
    "promptecho tables --table geneval --scores results/shapes --print",
    "promptecho plan --config config/experiments/zimage.yaml --nodes 4 --gpus-per-node 8 --gpu h100",
    "promptecho config check config/experiments/shapes.yaml",
)


def attach(app: typer.Typer, *words: str) -> None:
    """Give every command of `app` its examples, and every group the first one of each of its commands."""
    for info in app.registered_commands:
        assert info.callback is not None, "each is made from a function"
        name = " ".join((*words, info.name or info.callback.__name__.replace("_", "-")))
        info.epilog = _epilog(EXAMPLES.get(name, ()))
    for group in app.registered_groups:
        path = (*words, str(group.name))
        assert group.typer_instance is not None, "each is added as one"
        attach(group.typer_instance, *path)
        own = EXAMPLES.get(" ".join(path), ())
        of_commands = [lines for name, lines in EXAMPLES.items() if name.startswith(" ".join(path) + " ")]
        firsts = [next(line for line in lines if not line.startswith("#")) for lines in of_commands]
        group.epilog = _epilog((*own, *firsts))
    if not words:
        app.info.epilog = _epilog(FIRST)


def epilog(command: str) -> str | None:
    """The examples of a command, given by all its words."""
    return _epilog(EXAMPLES.get(command, ()))


def _epilog(lines: tuple[str, ...]) -> str | None:
    """The examples, wrapped as a shell takes them; `\\b` keeps the lines as they are."""
    if not lines:
        return None
    return "\n".join(
        ("\b", f"Example{'s' * (len(lines) > 1)}:", *(f"  {line}" for one in lines for line in wrapped(one)))
    )


def wrapped(line: str) -> list[str]:
    """At most 74 columns a line, broken between options or files."""
    if line.startswith("#"):
        return textwrap.wrap(line, 74, subsequent_indent="# ")
    if len(line) <= 74:
        return [line]
    words = [word for part in re.split(r" (?=--)", line) for word in (part.split(" ") if len(part) > 70 else [part])]
    rows = [words[0]]
    for word in words[1:]:
        if len(rows[-1]) + len(word) + 1 <= 72:
            rows[-1] += f" {word}"
        else:
            rows.append(f"    {word}")
    return [f"{row} \\" for row in rows[:-1]] + rows[-1:]
