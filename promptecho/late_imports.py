"""Lets a command begin without SciPy, which transformers and diffusers import for what it does not use.

Losses for detectors and solvers that nobody asked for bring SciPy's statistics and optimization, a seventh of what a
command with models imports. While one of the modules in `KEPT_OUT` runs, a stand-in is in the place of the library. It
imports the library when something of it is used.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

SCIPY = ("scipy", "scipy.stats", "scipy.optimize")
# By the beginning of the names of modules that import it: what stays out until it is used.
KEPT_OUT = {
    "diffusers.schedulers.": SCIPY,  # for `use_beta_sigmas` and other solvers
    "transformers.loss.": SCIPY,  # to train detectors
}
_IN_PLACE: dict[str, types.ModuleType] = {}  # the stand-ins in sys.modules now


class _Later:
    """Something of a module that is imported when it is called, or when something of it is asked for."""

    def __init__(self, module: str, name: str):
        self._names = module, name

    def _it(self) -> Any:
        module, name = self._names
        return getattr(importlib.import_module(module), name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._it()(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._it(), name)


class _StandIn(types.ModuleType):
    def __init__(self, name: str):
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Later(self.__name__, name)


class _LateFinder:
    """Runs the modules of `KEPT_OUT` with stand-ins in place."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        kept = next((kept for begin, kept in KEPT_OUT.items() if name.startswith(begin)), ())
        if not (kept or _IN_PLACE):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def exec_module(module: types.ModuleType) -> None:
            with _standing_in(kept):
                execute(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _standing_in(names: tuple[str, ...]) -> Iterator[None]:
    """For one module alone: what that module imports for the first time is run with `names` of its own, or none."""
    outside = dict(_IN_PLACE)
    for name in outside:
        del sys.modules[name]
    _IN_PLACE.clear()
    _IN_PLACE.update({name: _StandIn(name) for name in names if name not in sys.modules and _installed(name)})
    sys.modules.update(_IN_PLACE)
    try:
        yield
    finally:
        for name in _IN_PLACE:
            del sys.modules[name]
        _IN_PLACE.clear()
        _IN_PLACE.update({name: module for name, module in outside.items() if name not in sys.modules})
        sys.modules.update(_IN_PLACE)


@functools.cache
def _installed(name: str) -> bool:
    return importlib.util.find_spec(name.partition(".")[0]) is not None


def import_late() -> None:
    """From now on in this process. Libraries that are imported already stay."""
    if not any(isinstance(finder, _LateFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _LateFinder())
