"""Starts the Snakemake of a Slurm job without the libraries that such a Snakemake never uses: half of its own time.

    python job_start.py ARGUMENTS        # instead of: python -m snakemake ARGUMENTS

Snakemake and the libraries under it import much for what nobody asks for inside of a job: databases, reports, a solver,
plugins that submit jobs. `KEPT_OUT` names it. While a module runs that imports such a library, a stand-in is in its
place, and is taken away afterwards: the workflow's own code gets the real library at any time. A stand-in that is used
after all imports the library or, where that is too late, has the process begin again as plain Snakemake.

Standard library only, and no other file of this package: jobs run a copy of this file, of the day of their submission.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.machinery
import os
import pkgutil
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import NoReturn

PLUGIN = "snakemake_executor_plugin_submitit"
# What belongs to database columns alone, in the fields of a record.
_OF_COLUMNS = ("primary_key", "foreign_key", "unique", "nullable", "index", "sa_type", "sa_column", "sa_column_args")


class WhenUsed(types.ModuleType):
    """A module that is imported when something of it is used for the first time."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:  # `from it import name`: a function or class, to be called later
            return lambda *args, **options: getattr(importlib.import_module(self.__name__), name)(*args, **options)
        return getattr(importlib.import_module(self.__name__), name)


class IfImported(types.ModuleType):
    """A module whose classes are asked for in `isinstance` alone: nothing is of them unless somebody imports it."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        real = sys.modules.get(self.__name__)
        return () if real is None or real is self else getattr(real, name)


def begin_plainly(*_args: object, **_options: object) -> NoReturn:
    """As `python -m snakemake` with the same arguments, in this process."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, "-m", "snakemake", *sys.argv[1:]])


def column_types(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.Column, module.JSON = lambda *_args, **_options: None, None  # type: ignore[attr-defined]
    return module


def records_without_database(name: str) -> types.ModuleType:
    """`SQLModel` where no table is made of it is pydantic's model."""
    from pydantic import BaseModel, ConfigDict, Field

    class SQLModel(BaseModel):
        model_config = ConfigDict(from_attributes=True)

    def field(*args, **options):
        return Field(*args, **{key: value for key, value in options.items() if key not in _OF_COLUMNS})

    module = types.ModuleType(name)
    module.SQLModel, module.Field = SQLModel, field  # type: ignore[attr-defined]
    return module


def database(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.DbPersistence = begin_plainly  # type: ignore[attr-defined]
    return module


def submitter(name: str) -> types.ModuleType:
    from snakemake_interface_executor_plugins.executors.base import AbstractExecutor

    module = types.ModuleType(name)
    module.Executor = type("Executor", (AbstractExecutor,), {"__new__": begin_plainly})  # type: ignore[attr-defined]
    return module


def missing(name: str) -> None:
    """Python takes None for a module that is not there."""


# By the module that imports it: a library, and what stands in. All of it is imported in every job of plain Snakemake.
KEPT_OUT: dict[str, dict[str, Callable]] = {
    # The files in .snakemake/metadata need no database.
    "snakemake.persistence": {"sqlalchemy": column_types, "sqlmodel": records_without_database},
    "snakemake.workflow": {"snakemake.persistence.db": database},
    # A job is submitted with the greedy scheduler; this one looks only for its solver's name, and can do without.
    "snakemake.scheduling.milp": {"pulp": missing},
    # They only tell paths from addresses, unless a file of the workflow has an address.
    "smart_open.http": {"requests": WhenUsed},
    "smart_open.webhdfs": {"requests": WhenUsed},
    # YAML files whose values are numpy's.
    "yte.value_handler": {"numpy": IfImported},
    # Reports are made by the Snakemake outside.
    "snakemake.report.html_reporter": {"jinja2": WhenUsed},
    # Jobs are submitted by the Snakemake outside.
    PLUGIN: {f"{PLUGIN}.executor": submitter},
}


@contextlib.contextmanager
def standing_in(modules: Mapping[str, types.ModuleType | None]) -> Iterator[None]:
    """Let these be imported in place of those that are not imported yet."""
    new = {name: module for name, module in modules.items() if name not in sys.modules}
    sys.modules.update(new)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in new:
            sys.modules.pop(name, None)


class Finder:
    """Runs the modules that `KEPT_OUT` names with the stand-ins in place."""

    def find_spec(self, name, path=None, target=None):
        if name not in KEPT_OUT:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            with standing_in({one: make(one) for one, make in KEPT_OUT[name].items() if one not in sys.modules}):
                execute(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def collect_plugins(snakemake) -> None:
    """As Snakemake will do, but the installed packages are looked through once, and reports stay out."""
    from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry
    from snakemake_interface_logger_plugins.registry import LoggerPluginRegistry
    from snakemake_interface_report_plugins.registry import ReportPluginRegistry
    from snakemake_interface_scheduler_plugins.registry import SchedulerPluginRegistry
    from snakemake_interface_storage_plugins.registry import StoragePluginRegistry

    look, found = pkgutil.iter_modules, list(pkgutil.iter_modules())
    report = types.ModuleType("snakemake.report")
    report.__path__ = [os.path.join(folder, "report") for folder in snakemake.__path__]
    pkgutil.iter_modules = lambda path=None, prefix="": look(path, prefix) if path or prefix else iter(found)
    try:
        for registry in (ExecutorPluginRegistry, StoragePluginRegistry, LoggerPluginRegistry, SchedulerPluginRegistry):
            registry()
        with standing_in({report.__name__: report}):
            ReportPluginRegistry()
        for name in [name for name in sys.modules if name.startswith("snakemake.report.")]:
            del sys.modules[name]  # which is no part of the real one
    finally:
        pkgutil.iter_modules = look


def main() -> None:
    if not sys.flags.safe_path:
        sys.path[0] = os.getcwd()  # as `python -m` has it
    finder = Finder()
    sys.meta_path.insert(0, finder)
    try:
        import snakemake
        from snakemake import cli

        collect_plugins(snakemake)
    except Exception:  # another Snakemake than those that this was written for
        begin_plainly()
    sys.argv[0] = os.path.join(snakemake.__path__[0], "__main__.py")
    cli.main()


if __name__ == "__main__":
    main()
