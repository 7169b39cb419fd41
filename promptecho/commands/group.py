"""Groups of commands: their order in help texts, and commands that benchmarks bring."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

import typer
import typer.core

from promptecho.commands import examples

# As a reader meets them: the stages in the order in which the workflow runs them, then what prepares and watches them.
STAGES = ("caption", "train", "generate", "judge", "score", "guard", "tables", "figures")
BESIDE: tuple[str, ...] = ("status", "stop", "efficiency", "show", "browse", "track", "reward", "reward-audit", "list")
BESIDE += ("doctor", "plan", "bench", "upgrade", "clean")
BESIDE += ("models", "envs", "adapter", "try", "publish", "benchmarks", "config", "gpus", "shapes")


class CommandGroup(typer.core.TyperGroup):
    """Lists its commands in the order above, with their whole sentences.

    Contexts and formatters are those of typer's own copy of click, which it does not export.
    """

    def list_commands(self, ctx: Any) -> list[str]:
        order = [*STAGES, *BESIDE]
        return sorted(super().list_commands(ctx), key=lambda name: order.index(name) if name in order else len(order))

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        rows = [(name, self.commands[name].get_short_help_str(1000)) for name in self.list_commands(ctx)]
        stages = [row for row in rows if row[0] in STAGES]
        for title, some in (("Stages, in the order of the workflow", stages), ("Beside them", rows[len(stages) :])):
            if some:
                with formatter.section(title if stages else "Commands"):
                    formatter.write_dl(some)


class BenchmarksGroup(CommandGroup):
    """A group with further commands, those of the benchmarks at hand: looked for when the group is used, so that the
    command line starts without them. With `--config FILE`, those that the file's plugins bring are among them."""

    prefix = ""  # the group's own name

    def of_benchmarks(self, ours_only: bool = False) -> dict[str, tuple[Callable[..., Any], str]]:
        """Function and help of each, by name; `ours_only`: without those of plugins."""
        raise NotImplementedError

    def of_plugins(self) -> set[str]:
        """Names of the commands that plugins bring."""
        return self.of_benchmarks().keys() - self.of_benchmarks(ours_only=True).keys()

    @property
    def commands(self) -> MutableMapping[str, Any]:
        found = {name: _command(f"{self.prefix} {name}", *one) for name, one in self.of_benchmarks().items()}
        return {**self._own, **{name: one for name, one in found.items() if name not in self._own}}

    @commands.setter
    def commands(self, own: MutableMapping[str, Any]) -> None:
        self._own = own

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] not in self.commands and "--config" in args[:-1]:
            from promptecho.config import load_experiment

            load_experiment(args[args.index("--config") + 1])
        return super().resolve_command(ctx, args)


def _command(name: str, function: Callable[..., Any], told: str) -> Any:
    """A command as typer makes it of a function."""
    alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    alone.command(name.rpartition(" ")[2], help=told, epilog=examples.epilog(name))(function)
    return typer.main.get_command(alone)
