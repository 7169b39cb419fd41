"""One step of the benchmark, as a process of its own: `python -m promptecho.bench.step NAME --config C --rows FILE`.

Exit code 3: this checkout does not know a setting, or this machine does not have what it asks for (`compute.*`).
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import version
from pathlib import Path

from promptecho.bench.runner import ABSENT

UNKNOWN = re.compile(r"is not a known key|input should be|compute\.\w+: ")


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=["peak", "forward", "sampler", "reward", "update", "iteration"])
    parser.add_argument("--config", type=Path, help="Experiment file.")
    parser.add_argument("--run", help="Default: the first one.")
    parser.add_argument("--set", action="append", default=[], dest="changes", metavar="KEY=VALUE")
    parser.add_argument("--rows", type=Path, required=True, help="JSON Lines file for what is measured.")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3, help="Of the sampler, where it meets the pipeline.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tokens", type=int, help="Of a prompt; default: what the configuration takes, over 1.6.")
    parser.add_argument("--tiny", action="store_true", help="Small products, for a test of the script.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args(words)
    if arguments.name == "peak":  # needs torch and nothing else
        from promptecho.bench.peak import peak

        peak(arguments.rows, arguments.device, arguments.threads, tiny=arguments.tiny)
        return
    from promptecho.errors import PromptEchoError

    try:
        measure(arguments)
    except PromptEchoError as error:
        told = " ".join(str(error).splitlines())
        print(told, file=sys.stderr)
        sys.exit(ABSENT if UNKNOWN.search(told) and arguments.changes else 1)


def measure(arguments: argparse.Namespace) -> None:
    """Run the step."""
    from promptecho.bench import iteration, rewards, transformer
    from promptecho.bench.context import open_bench
    from promptecho.bench.peak import machine

    bench = open_bench(arguments)
    versions = [f"{name} {version(name)}" for name in ("diffusers", "transformers", "peft", "deepspeed")]
    bench.facts(**machine(bench.device), versions=", ".join(versions))
    if arguments.name == "iteration":
        iteration.iteration(bench, arguments.iterations)
    elif arguments.name == "reward":
        rewards.reward(bench)
    elif arguments.name == "sampler":
        transformer.sampler(bench, arguments.steps)
    elif arguments.name == "forward":
        transformer.forward(bench)
    else:
        transformer.update(bench)


if __name__ == "__main__":
    main()
