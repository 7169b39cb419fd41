"""Every value that a profile holds or shows, commented examples too, is taken by Snakemake's own conversion."""

from __future__ import annotations

import io
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import snakemake.cli
import yaml
from snakemake.resources import Resources

from promptecho.config import load_experiment
from promptecho.config.resources import ResourcesSection
from snakemake_executor_plugin_submitit.resources import request_of

ROOT = Path(__file__).resolve().parent.parent.parent
PROFILES = sorted(path.parent.name for path in ROOT.glob("profiles/*/config.yaml"))
EXPERIMENTS = sorted(path.stem for path in ROOT.glob("config/experiments/*.yaml"))
DOCS = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted((ROOT / "docs").glob("*.md"))]
DOCS += sorted(ROOT.glob("plugins/*/README.md")) + sorted(ROOT.glob("plugins/*/docs/*.md"))
# What is text; all else that a profile sets is a number.
TEXTS = {
    "slurm_partition", "slurm_account", "slurm_extra", "qos", "constraint", "reservation", "gpu_model", "gres", "mpi",
}  # fmt: skip


def read(*words: str):
    """What Snakemake makes of a command line, profiles included; it ends with SystemExit where it refuses one."""
    return snakemake.cli.get_argument_parser(_profiles(words)).parse_args(list(words))


def _profiles(words: tuple[str, ...]) -> list[str]:
    return [str(ROOT / after) for word, after in zip(words, words[1:], strict=False) if word == "--profile"]


def value_of(one, experiment: str):
    """A resource of a job of `experiment`, evaluated."""
    wildcards = SimpleNamespace(E=experiment, R="run", N="1")
    return one.evaluate(
        wildcards=wildcards, input=SimpleNamespace(size_mb=1), attempt=2, threads=1, rulename="r", async_run=None
    )


def evaluated(resources: Resources, experiment: str) -> dict[str, object]:
    """Values for a job of `experiment`, with the units that Snakemake adds."""
    return dict(resources.expand_items(constraints={}, evaluate=lambda one: value_of(one, experiment)))


def check(arguments, experiment: str) -> dict[str, dict[str, object]]:
    """Resources by rule, each with its type, and taken by the executor; threads are whole numbers."""
    default = arguments.default_resources or Resources()
    found = {}
    for rule, own in {"any": Resources(), **(arguments.set_resources or {})}.items():
        found[rule] = values = evaluated(default, experiment) | evaluated(own, experiment)
        request_of(rule, {name: value for name, value in values.items() if name not in ("mem", "disk")}, 1)
        for name, value in values.items():
            if name in TEXTS:
                assert isinstance(value, str), f"{rule}: {name}={value!r} is not text"
            elif name not in ("mem", "disk", "tmpdir"):  # as people read them
                assert type(value) is int, f"{rule}: {name}={value!r} is not a number"
    for rule, threads in (arguments.set_threads or {}).items():
        value = value_of(threads, experiment).value
        assert type(value) is int and value > 0, f"{rule}: {value!r} threads"
    return found


def check_profile(text: str, folder: Path) -> dict[str, dict[str, object]]:
    """Resources by rule of the experiment `zimage`; the others are looked at, too."""
    (folder / "config.yaml").write_text(text)
    arguments = read("--profile", str(folder))
    return {experiment: check(arguments, experiment) for experiment in EXPERIMENTS}["zimage"]


def uncommented(text: str) -> str:
    """The profile with its commented examples taken in: lines that are a key, with nothing before it."""
    return re.sub(r"^( *)# ((?:  )*[a-z][a-z_-]*:(?: .*)?)$", r"\1\2", text, flags=re.MULTILINE)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_value_of_a_profile_is_taken(profile, tmp_path):
    text = (ROOT / f"profiles/{profile}/config.yaml").read_text()
    found = check_profile(text, tmp_path)
    more = check_profile(uncommented(text), tmp_path)
    assert uncommented(text) != text
    if profile == "slurm":
        assert set(found) == {"any"}  # how large jobs are, experiments say
        assert more["judge"]["slurm_partition"] == "internet" and more["train"]["nodes"] == 2
    else:
        assert more["train"]["gpu"] == 4


def test_rules_that_profiles_name_are_rules():
    rules = set(re.findall(r"^rule (\w+):", "".join(p.read_text() for p in ROOT.glob("workflow/rules/*.smk")), re.M))
    for profile in PROFILES:
        known = yaml.safe_load(uncommented((ROOT / f"profiles/{profile}/config.yaml").read_text()))
        assert {*known.get("set-resources", {}), *known.get("set-threads", {})} <= rules


def snippets() -> list[str]:
    """YAML and single `key: value` of the profiles' README, each as a whole profile."""
    text = (ROOT / "profiles/README.md").read_text()
    text = re.sub(r"```yaml\nresources:.*?```|`resources: [^`]+`", "", text, flags=re.DOTALL)  # of experiment files
    inline = [f"set-resources: {{train: {{{pair}}}}}" for pair in re.findall(r"`([a-z_]+: [^`]+)`", text)]
    return [*re.findall(r"```yaml\n(.*?)```", text, re.DOTALL), *(one for one in inline if "set-threads" not in one)]


def test_every_example_of_the_profiles_readme_is_taken(tmp_path):
    assert len(snippets()) >= 5
    for text in snippets():
        check_profile(text, tmp_path)


def test_every_example_of_an_experiment_s_resources_is_taken():
    text = (ROOT / "profiles/README.md").read_text()
    found = re.findall(r"```yaml\n(resources:.*?)```|`(resources: [^`]+)`", text, re.DOTALL)
    assert len(found) == 2
    for one in found:
        ResourcesSection.model_validate(yaml.safe_load("".join(one))["resources"])


def commands() -> list[str]:
    """Command lines of the docs that call Snakemake, in blocks and in sentences."""
    found = []
    for path in DOCS:
        text = path.read_text()
        found += re.findall(r"^(?:\S+=\S+ )*(snakemake --.*?)(?:  +#.*)?$", text, re.MULTILINE)
        found += [one.replace("\n", " ") for one in re.findall(r"`(snakemake --[^`]+)`", text)]
    return found


def test_every_command_of_the_docs_is_taken(capsys):
    assert len(commands()) > 20
    for line in commands():
        # Plugins that are not among the installed packages: the standard executor reads the same resources.
        ours = re.sub(r"--executor slurm\b", "--executor submitit", line)
        _, *words = shlex.split(re.sub(r"--logger( [a-z]+)+", "", ours))
        try:
            arguments = read(*words)
        except SystemExit as end:
            assert end.code == 0, f"{line}: {capsys.readouterr().err}"
            continue
        check(arguments, "shapes")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('set-resources: {judge: {mem_mb: "8000"}}', "mem_mb"),
        ('default-resources: {disk_mb: "1000"}', "disk_mb"),
        ("set-resources: {train: {mem_mib: \"12 if wildcards.E == 'none' else '8000'\"}}", "mem"),
        ('set-resources: {train: {nodes: "2"}}', "nodes='2'.*without quotes"),
        ('set-resources: {train: {gpus_per_node: "8"}}', "gpus_per_node='8'.*without quotes"),
        ("set-resources: {train: {qos: 5}}", "qos"),
    ],
)
def test_text_in_place_of_a_number_is_found(text, problem, tmp_path):
    with pytest.raises(Exception, match=problem):
        check_profile(text, tmp_path)


def test_a_profile_is_read_as_snakemake_reads_it():
    """The parser for profiles quotes numbers that are text, so that the next step takes them for text, too."""
    from snakemake.profiles import ProfileConfigFileParser

    stream = io.StringIO('set-resources: {judge: {mem_mb: "8000", runtime: 5}}')
    stream.name = "config.yaml"
    assert ProfileConfigFileParser().parse(stream)["set-resources"] == ["judge:mem_mb='8000'", "judge:runtime=5"]


@pytest.mark.parametrize("profile", PROFILES)
def test_every_experiment_is_planned(workflow, profile):
    """With stand-ins for the images, prompts and labels that the user brings; and every job's resources are taken."""
    configs = [load_experiment(ROOT / f"config/experiments/{name}.yaml") for name in EXPERIMENTS]
    for config in configs:
        if config.captions.images:
            (workflow.root / config.captions.images).mkdir(parents=True, exist_ok=True)
            (workflow.root / config.captions.images / "one.png").touch()
        brought = [config.captions.prompts, *(reward.label for reward in config.rewards)]
        brought += [entry.prompts for entry in config.image_sets.values()]
        for file in [workflow.root / one for one in brought if one and one.startswith("data/posters/")]:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text('{"data_id": "a", "prompt": "A poster.", "label": "{}"}\n')
    executor = ["--submitit-skip-checks"] if profile == "slurm" else []  # what this machine's Slurm has is not asked
    listed = f"experiments=[{','.join(EXPERIMENTS)}]"
    planned = workflow.planned(*executor, "--config", listed, "--", "all", profile=profile)
    assert planned["train"] == sum(len(run.checkpoint_steps) for config in configs for run in config.runs.values())
    assert planned["caption_shard"] == sum(config.captions.num_shards for config in configs if config.captions.writes)
    assert planned["table"] == sum(len(config.tables) for config in configs) and planned["paper_tables"] == 1
    assert planned["score"] == sum(scores(config) for config in configs)


def scores(config) -> int:
    """How many checkpoints `evaluate` names: all of a run's or its last, and the base model unless pairs are made."""
    number = 0
    for entry in config.evaluate:
        pairs = config.benchmarks[entry.benchmark].scorer == "densealign"
        number += sum(len(run.checkpoint_steps) if entry.at == "all" else 1 for run in config.runs.values())
        number += 0 if pairs else 1
    return number
