"""Every command on the pages of documentation: run on a finished demo, or planned, or parsed; nothing is lost by it."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import small_demo
from doc_examples import PAGES, ROOT, Example, all_examples, parse

from promptecho.commands.examples import EXAMPLES

# Commands of `promptecho` that are parsed only, by how they begin, and why.
NOT_RUN = {
    "promptecho benchmarks fetch": "network",
    "promptecho models fetch": "network",
    "promptecho models verify": "reads models that were fetched",
    "promptecho models unstage": "deletes copies on a node's disk",
    "promptecho envs build": "network (tests/unit/test_envs.py)",
    "promptecho envs check": "environments that were built (tests/unit/test_envs.py)",
    "promptecho benchmarks verify": "tests/unit/test_benchmarks_golden.py",
    "promptecho benchmarks labels": "a judge, or prompts that the reader brings",
    "promptecho benchmarks pack": "moves images into images.tar, as it says (tests/unit/test_packing.py)",
    "promptecho reward image.png --name http": "a server that the reader starts (tests/unit/test_reward_http.py)",
    "promptecho judge": "images of an experiment that takes days",
    "promptecho tables --table dpg --benchmark dpg-vlm": "results of experiments that take days",
    "promptecho tables --paper": "results of experiments that take days",
    "promptecho tables --table tiif --scores results/zimage": "results of experiments that take days",
    "promptecho doctor": "what it finds depends on the machine (tests/unit/test_doctor.py)",
    "promptecho plan": "tests/unit/test_plan_paper.py plans the paper's experiments",
    "promptecho bench": "minutes (tests/unit/test_bench.py)",
    "promptecho upgrade results/zimage": "results of experiments that take days",
    "promptecho clean results/shapes --yes": "deletes, as it says (tests/unit/test_clean.py)",
    "promptecho train --config": "the demo is made by such commands",
    "promptecho train --smoke": "tests/unit/test_train_smoke.py",
    "promptecho shapes train-": "an hour each",
    "promptecho shapes measure": "minutes (tests/unit/test_shapes_models.py)",
    "promptecho score --benchmark geneval2": "folders that the page's script makes (tests/unit/test_geneval2.py)",
    "promptecho tables --table geneval2 --scores results/atoms": "scores that the page's script makes",
    "promptecho score --benchmark unigenbench": "folders that the page's script makes (tests/unit/test_unigenbench.py)",
    "promptecho tables --table unigenbench --scores results/points": "scores that the page's script makes",
    "promptecho score --benchmark longtext": "images of another experiment (tests/unit/test_longtext.py)",
    "promptecho tables --table longtext --scores results/words": "scores that are not made here",
    "promptecho score --benchmark oneig_": "images of another experiment (tests/unit/test_oneig.py)",
    "promptecho tables --table oneig_": "scores that are not made here",
    "promptecho score --benchmark t2icompbench": "folders of the page's script (tests/unit/test_t2icompbench.py)",
    "promptecho tables --table t2icompbench --scores results/compositions": "scores that the page's script makes",
    "promptecho reward-audit --config rewards.yaml": "minutes, a file of the reader's",
    "promptecho reward-audit --vlm shapes --query": "minutes (tests/unit/test_reward_audit.py)",
    "promptecho reward-audit --vlm gallery": "minutes (tests/unit/test_reward_audit.py)",
    "promptecho reward-audit --vlm models/": "models and captions of the reader's",
    "promptecho reward-audit --config my-clip": "a CLIP model and captions of the reader's",
    "promptecho guard": "an experiment with guards, of the reader's (tests/unit/test_guards.py)",
    "promptecho gpus run": "starts the reader's own program",
    "promptecho track results/shapes --to wandb": "a package and a key (tests/unit/test_trackers.py)",
    "promptecho publish results/mine": "sends it to a model hub (tests/unit/test_publish.py)",
}
# What the guide of a first experiment makes before it plans: made with the demo, so that each test finds it.
BEFORE = (
    "promptecho shapes render --world gallery --count 200 --seed 3 --out data/first-images",
    "promptecho config new first --small --images data/first-images",
)
NOT_RUN |= dict.fromkeys(BEFORE, "the fixture of the finished demo runs it")
# Other programs, by how they begin, and why they are not run.
OTHERS = {
    "git clone": "network",
    "cd ": "a folder of the reader's",
    "mkdir ": "a folder of the reader's",
    "cp ": "files of the reader's",
    "export PATH": "the tests name the programs by their paths",
    "$EDITOR": "a person edits",
    "scripts/unlock.sh": "waits for jobs of a killed Snakemake (tests/workflow/test_unlock.py)",
    "squeue": "a cluster",
    "sinfo": "a cluster",
    "scontrol": "a cluster",
    "hf download": "network",
    "pip install": "network",
    "pip wheel": "network",
    "python -m pip install": "network",
    "python -c": "looks at torch",
    "python -m snakemake": "Snakemake itself",
    "python -m pytest": "the tests themselves",
    "python evaluation/evaluate_images.py": "a file of GenEval's repository",
    "python my_own_script.py": "the reader's own",
    "tensorboard": "a server",
    "make": "checked against the Makefile",
}
# Commands for Snakemake that plan jobs on a finished demo, and why; all others have nothing left to do there.
NEW_WORK = {
    "experiments=mine": "an experiment of the reader's own",
    "experiments=first": "an experiment of the reader's own",
    "experiments=zimage": "another experiment",
    "experiments=gallery": "other experiments",
    "experiments=shapes-yes": "another experiment",
    "experiments=shapes-auraflow": "another experiment",
    "experiments=shapes-tint": "another experiment",
    "experiments=shapes-ollama": "another experiment",
    "set=": "another run, or another value",
    "shapes={": "another value",
    "paper": "tables of the paper are not made by `all`",
    " words": "pages of words are not made by `all`",
    " browse": "pages to browse are not made by `all`",
}
# Commands for Snakemake that end with a message here, and what they say.
REFUSED = {
    "train:gpu=4": "GPU",  # this machine has none
    "results/zimage": "images",  # the reader's images are not there
    "experiments=mine": "images",
    "experiments=poster ": "data/posters",  # the reader's prompts are not there
}
EVERYTHING = all_examples()


def unique(program: str, *, inline: bool) -> list[Example]:
    return list({one.line: one for one in EVERYTHING if one.program == program and one.inline <= inline}.values())


def starts(line: str, table: dict[str, str]) -> str | None:
    return next((begin for begin in table if line.startswith(begin)), None)


def listing(root: Path) -> dict[str, tuple[int, str]]:
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {
        str(path.relative_to(root)): (path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in files
    }


@pytest.fixture(scope="module")
def finished_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = small_demo.build(tmp_path_factory.mktemp("demo"))
    (root / "data/my-images").mkdir(parents=True)
    for line, (code, output) in zip(BEFORE, small_demo.promptecho(root, [*BEFORE]), strict=True):
        assert code == 0, f"{line}: {output[-1500:]}"
    return root


@pytest.fixture
def demo(finished_demo: Path) -> Iterator[Path]:
    """The demo, of which a test may neither delete nor change a file."""
    before = listing(finished_demo / "results")
    yield finished_demo
    after = listing(finished_demo / "results")
    changed = [name for name in before if after.get(name) != before[name]]
    assert not changed, f"deleted or overwritten: {changed}"


def test_pages_hold_examples():
    assert len({one.page for one in EVERYTHING}) > 15
    assert len({one.line for one in EVERYTHING}) > 100


@pytest.mark.parametrize("page", ["README.md", "profiles/README.md"])
def test_the_path_is_set_before_the_first_command_that_needs_it(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    export = text.index('export PATH="$PWD/.venv/bin:$PATH"')
    bare = [text.find(f"\n{program} ") for program in ("snakemake", "promptecho")] + [text.find("`snakemake --p")]
    assert all(place < 0 or export < place or text[export - 400 : export].count("`snakemake") for place in bare)
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        if "make setup" in block and re.search(r"^snakemake", block, re.MULTILINE):
            assert block.index("export PATH") < re.search(r"^snakemake", block, re.MULTILINE).start()


def test_commands_of_promptecho_parse():
    for one in unique("promptecho", inline=True):
        parse(one.line, partial=one.inline or "..." in one.words)


def test_commands_of_promptecho_run_and_change_nothing(demo):
    pages = [one.line for one in unique("promptecho", inline=False) if "..." not in one.words]
    helps = [line for lines in EXAMPLES.values() for line in lines if not line.startswith("#")]
    lines = [line for line in dict.fromkeys([*pages, *helps]) if starts(line, NOT_RUN) is None]
    lines = [line for line in lines if not re.search(r" [A-Z]{4,}\b", line)]  # PHOTOS stands for the reader's own
    assert len(lines) > 25
    failed = [
        f"{line}: exit code {code}\n{output[-1500:]}"
        for line, (code, output) in zip(lines, small_demo.promptecho(demo, lines), strict=True)
        if code != 0
    ]
    assert not failed, "\n".join(failed)


def test_what_is_not_run_is_still_there():
    lines = [one.line for one in unique("promptecho", inline=True)]
    lines += [line for examples in EXAMPLES.values() for line in examples]
    assert not [begin for begin in NOT_RUN if not any(x.startswith(begin) for x in lines)]


def test_commands_for_snakemake_have_nothing_to_do_or_say_why(demo):
    lines = [one for one in unique("snakemake", inline=True) if one.line not in ("snakemake -n", "snakemake --help")]
    lines = [
        one
        for one in lines
        if not re.search(r"--unlock|--logger|--conda-create|--report|--executor slurm|promptecho_all", one.line)
    ]
    # With `all` or without, planned only or run: the same jobs.
    lines = list({frozenset(one.words) - {"-n", "--", "all"}: one for one in lines}.values())
    wrong = []
    for one, (code, output) in zip(lines, small_demo.plans(demo, [one.words for one in lines]), strict=True):
        refused = next((text for part, text in REFUSED.items() if part in one.line), None)
        if code != 0:
            if refused is None or refused not in output:
                wrong.append(f"{one.page}: {one.line}: exit code {code}\n{output[-1500:]}")
        elif not any(part in one.line for part in NEW_WORK) and "Nothing to be done" not in output:
            wrong.append(f"{one.page}: {one.line}: plans jobs on a finished demo\n{output[-1500:]}")
        for path in re.findall(r"^ +output: (.+)$", output, re.MULTILINE):
            there = [name for name in path.split(", ") if (demo / name).exists()]
            if there:
                wrong.append(f"{one.page}: {one.line}: would delete {there} first")
    assert not wrong, "\n\n".join(wrong)


def test_all_really_runs_on_a_finished_demo(demo):
    assert "Nothing to be done" in small_demo.snakemake(demo, "all")


def test_targets_of_make_are_there():
    text = (ROOT / "Makefile").read_text()
    targets = {one.arguments[0] for one in EVERYTHING if one.program == "make" and one.arguments}
    assert targets
    assert not [target for target in targets if not re.search(rf"^{target}:", text, re.MULTILINE)]


def test_scripts_are_there_with_their_options(demo):
    for one in unique("python", inline=True):
        if starts(" ".join([one.program, *one.arguments]), OTHERS):
            continue
        script, *arguments = one.arguments
        text = (ROOT / script).read_text()
        text += "".join(path.read_text() for path in (ROOT / script).parent.glob("*.py"))
        for option in (word for word in arguments if word.startswith("--")):
            assert option in text or option.strip("-").replace("-", "_") in text, one.line
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/stage_times.py", "results/shapes"], cwd=demo, capture_output=True, text=True
    )
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr


def test_every_other_command_is_known():
    others = [one for one in EVERYTHING if one.program not in ("promptecho", "snakemake", "python", "make")]
    assert not [f"{one.page}: {one.line}" for one in others if starts(one.line, OTHERS) is None]


def test_pages_name_runs_and_checkpoints_that_the_demo_has(demo):
    """`results/shapes/...` on any page is a path of the demo, or of a run that the page adds."""
    missing, left_out = [], "|".join(small_demo.LEFT_OUT)
    for page in PAGES:
        for path in re.findall(r"results/shapes/[\w./*-]+", (ROOT / page).read_text(encoding="utf-8")):
            path = path.rstrip(".")
            added = r"-s[23]|permuted|E/|/(?:cosine|further|full)/"  # runs that a page adds
            if not [*demo.glob(path)] and not re.search(rf"{added}|/(?:{left_out})\b", path):
                missing.append(f"{page}: {path}")
    assert not missing


def test_json_is_one_value(demo):
    """What a script would read."""
    lines = ["promptecho train --watch results/shapes --json", "promptecho config show config/experiments/shapes.yaml"]
    (code, output), _ = small_demo.promptecho(demo, lines)
    assert code == 0
    json.loads(output)


def test_words_of_a_shell_are_understood():
    example = Example("x", "A=1 promptecho config check 'a b.yaml'")
    assert (example.program, example.arguments) == ("promptecho", ["config", "check", "a b.yaml"])
    assert shlex.join(example.words[1:]) == "promptecho config check 'a b.yaml'"
