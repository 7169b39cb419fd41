"""Things that come from outside as well as from us: found by name, and imported only when they are used.

A descriptor is a small object that says all about one thing, such as a reward. It is cheap to import and names heavy
parts by `module:object` strings. There are three ways to be found, and none is better than another:

- with the project: `Plugins(built_in=...)`;
- with an installed package: an entry point of the group `promptecho.KIND`, whose name is the descriptor's;
- `plugins: [module:object]` in an experiment file (`load_plugins`), for what is not installed.

A plugin is code that runs with your rights. So a file may name plugins where it lies below the folder in which the
process was started, as what you have written or copied there does; elsewhere it is refused (`check_trusted`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib
import importlib.metadata
import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from promptecho.errors import ConfigError
from promptecho.suggest import maybe

# What mistakes in code raise. Not RuntimeError, which is how torch reports that memory has run out.
MISTAKES = (ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, NameError, TypeError, ValueError)
SPEC = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
OURS = "promptecho"
# What annotations of descriptors allow, and how it is called.
PLAIN: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "bool": ((bool,), "True or False"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str | Path": ((str, Path), "a text or a Path"),
    "Path | None": ((Path, type(None)), "a pathlib.Path"),
}


class Named(Protocol):
    """What all descriptors have: the name by which a configuration asks for them."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


@dataclass(frozen=True)
class Registration(Generic[T]):
    """A descriptor, the `module:object` that it is, and who brings it: `promptecho`, a package, or a file's key."""

    thing: T
    spec: str
    origin: str

    @property
    def is_ours(self) -> bool:
        return self.origin == OURS

    def __str__(self) -> str:
        return f"{self.spec} of {self.origin}"


class Plugins(Generic[T]):
    """All descriptors of one kind.

    Args:
        kind: what they are called together, such as `rewards`; the group of entry points is `promptecho.KIND`.
        expected: their class; its attribute `name` is what each is found by.
        built_in: those of the project, `module:object` by name.
        noun: what one of them is called in messages; "": as their class.
    """

    def __init__(self, kind: str, expected: type[T], built_in: Mapping[str, str], noun: str = ""):
        self.kind, self.expected, self.built_in = kind, expected, dict(built_in)
        self.noun = noun or expected.__name__.lower()
        self.named: dict[str, Registration[T]] = {}  # by experiment files of this process
        self._loaded: dict[str, Registration[T]] = {}
        KINDS.append(self)

    def names(self) -> list[str]:
        """What may be written now: ours first, then what is installed, then what the experiment at hand names."""
        scope = _scope.get()
        named = [name for name, found in self.named.items() if scope is None or found.spec in scope]
        return list(dict.fromkeys([*self.built_in, *sorted(self._installed()), *named]))

    def find(self, name: str) -> Registration[T]:
        """The descriptor called `name`.

        Raises:
            ConfigError: there is none, there are two, or it cannot be imported.
        """
        if name not in self._loaded:
            places = self._places(name)
            if not places and name in self.named:
                return self.named[name]
            if not places:
                known = self.names()
                raise ConfigError(f"unknown {self.noun} {name!r}; known: {', '.join(known)}{maybe(name, known)}")
            if len(places) > 1:
                both = " and ".join(f"{spec} of {origin}" for spec, origin in places)
                raise ConfigError(f"{self.kind}: two are called {name}: {both}; uninstall or rename one of them")
            [(spec, origin)] = places
            thing = import_object(spec, f"{self.noun} {name} ({origin})")
            if not isinstance(thing, self.expected):
                wrong = f"{_what(thing)}, not a {self.expected.__name__}"
                raise ConfigError(f"{self.noun} {name} ({origin}): {spec} is {wrong}")
            if thing.name != name:
                wrong = f"calls itself {thing.name}, which must be the entry point's name"
                raise ConfigError(f"{self.noun} {name} ({origin}): {spec} {wrong}")
            if origin != OURS:
                check_parts(thing, f"{self.noun} {name} ({origin})")
            self._loaded[name] = Registration(thing, spec, origin)
        return self._loaded[name]

    def available(self, ours_only: bool = False) -> list[Registration[T]]:
        """All that may be written now and can be imported, ours first."""
        found = []
        for name in self.built_in if ours_only else self.names():
            with contextlib.suppress(ConfigError):  # told where it is used, and by `promptecho list`
                found.append(self.find(name))
        return found

    def add(self, thing: T, spec: str, origin: str) -> None:
        """Take what an experiment file names.

        Raises:
            ConfigError: another one has its name.
        """
        name = thing.name
        others = [Registration(thing, *place) for place in self._places(name)]
        others += [self.named[name]] if name in self.named else []
        for other in others:
            if other.spec != spec or (other.thing is not thing and other.origin == origin):
                raise ConfigError(f"{origin}: {spec} is called {name} as {other} is; give it another name")
        if not others:
            self.named[name] = Registration(thing, spec, origin)

    def _places(self, name: str) -> list[tuple[str, str]]:
        own = [(self.built_in[name], OURS)] if name in self.built_in else []
        return own + self._installed().get(name, [])

    def _installed(self) -> dict[str, list[tuple[str, str]]]:
        """`module:object` and package of each entry point, by its name; nothing is imported."""
        return _entry_points(tuple(sys.path)).get(f"{OURS}.{self.kind}", {})


@functools.cache
def _entry_points(path: tuple[str, ...]) -> dict[str, dict[str, list[tuple[str, str]]]]:
    """`module:object` and package by name, by group, as of this `sys.path`: all packages are read once."""
    groups: dict[str, dict[str, list[tuple[str, str]]]] = {}
    every = importlib.metadata.entry_points()
    for point in (one for group in every.groups if group.startswith(f"{OURS}.") for one in every.select(group=group)):
        found = groups.setdefault(point.group, {})
        package = f"{point.dist.name} {point.dist.version}" if point.dist else "an installed package"
        if (point.value, package) not in found.setdefault(point.name, []):  # a folder that is twice on the path
            found[point.name].append((point.value, package))
    return groups


KINDS: list[Plugins] = []
_scope: ContextVar[frozenset[str] | None] = ContextVar("plugins of the experiment at hand", default=None)
_allowed = False


@contextlib.contextmanager
def only(specs: Sequence[str]) -> Iterator[None]:
    """Inside, of all that experiment files of this process have named, only these may be written."""
    token = _scope.set(frozenset(specs))
    try:
        yield
    finally:
        _scope.reset(token)


def load_plugins(specs: Sequence[str], folder: str | Path, source: str) -> list[str]:
    """Import what an experiment file names in `plugins`.

    Args:
        folder: that file's folder, where modules that are not installed are found; it is put at the end of `sys.path`.
        source: the file, for messages.

    Returns:
        what is wrong: a line for each that can't be used, beginning with its key.
    """
    problems = []
    for index, spec in enumerate(specs):
        where = f"plugins.{index}"
        try:
            thing = import_object(spec, where, Path(folder))
            kind = next((kind for kind in KINDS if isinstance(thing, kind.expected)), None)
            if kind is None:
                known = " or ".join(kind.expected.__name__ for kind in KINDS)
                raise ConfigError(f"{where}: {spec} is {_what(thing)}, not a {known}")
            check_parts(thing, where)
            try:
                kind.add(thing, spec, f"{source}: {where}")
            except ConfigError as error:
                raise ConfigError(str(error).removeprefix(f"{source}: ")) from None
        except ConfigError as error:
            problems.append(str(error))
    return problems


def import_object(spec: str, where: str, folder: Path | None = None) -> Any:
    """The object that `module:object` names.

    Args:
        where: what messages begin with: the file, key or descriptor that names it.
        folder: where else than on Python's path its module may lie.

    Raises:
        ConfigError: no such module or object, its import fails, or another module hides it; one line.
    """
    if not SPEC.fullmatch(spec):
        raise ConfigError(f"{where}: expected MODULE:OBJECT, such as my_reward:REWARD (found {spec!r})")
    module, _, name = spec.partition(":")
    top = module.partition(".")[0]
    beside = None
    if folder is not None:
        folder = Path(os.path.abspath(folder))
        beside = next((path for path in (folder / top / "__init__.py", folder / f"{top}.py") if path.is_file()), None)
        if str(folder) not in sys.path and (beside is not None or (folder / top).is_dir()):
            sys.path.append(str(folder))
            importlib.invalidate_caches()
    try:
        loaded = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise ConfigError(f"{where}: {spec}: its import fails: {error}; install that module") from error
        at = "" if folder is None else f" in {folder}, nor"
        raise ConfigError(f"{where}: {spec}: no module {error.name}{at} on Python's path") from error
    except (Exception, SystemExit) as error:  # whatever code from outside may do
        raise ConfigError(f"{where}: {spec}: its import fails: {_told(error)}") from error
    found = getattr(sys.modules[top], "__file__", None)
    if beside is not None and (found is None or not beside.samefile(found)):
        other = found or "another module"
        raise ConfigError(f"{where}: {spec}: {beside} is hidden by {other}, which has the same name; rename {top}")
    try:
        return getattr(loaded, name)
    except AttributeError:
        near = maybe(name, [key for key in vars(loaded) if not key.startswith("_")])
        raise ConfigError(f"{where}: {spec}: {getattr(loaded, '__file__', module)} has no {name}{near}") from None


def check_parts(thing: Any, where: str) -> None:
    """Nothing, where the `module:object` strings of a descriptor can be found, as far as no module is imported for it.

    Raises:
        ConfigError: there is no such module, or a module that is imported already has no such object.
    """
    for key, spec in getattr(thing, "parts", {}).items():
        module, _, name = spec.partition(":")
        loaded = sys.modules.get(module)
        try:
            found = loaded is not None or importlib.util.find_spec(module) is not None
        except ModuleNotFoundError as error:  # of a package above it, unless that one's own imports fail
            found = error.name is None or not f"{module}.".startswith(f"{error.name}.")
        except Exception:  # code of a package above it: told by the job that needs it
            found = True
        if not found:
            raise ConfigError(f"{where}: {thing.name}: {key} {spec!r}: no module {module}; correct {key}")
        if loaded is not None and not hasattr(loaded, name):
            near = maybe(name, [one for one in vars(loaded) if not one.startswith("_")])
            raise ConfigError(f"{where}: {thing.name}: {key} {spec!r}: {module} has no {name}{near}")


def wrong_types(thing: Any) -> list[str]:
    """A line for each field of a descriptor whose value is of another type than its annotation says.

    Only plain annotations are looked at. Any collection will do for a tuple or a set of texts, but no single text.
    """
    problems = []
    for one in dataclasses.fields(thing):
        value = getattr(thing, one.name)
        if str(one.type) in PLAIN:
            types, words = PLAIN[str(one.type)]
            wrong = not isinstance(value, types) or (isinstance(value, bool) and bool not in types)
        elif str(one.type) in ("frozenset[str]", "tuple[str, ...]"):
            words = 'several texts, such as ("a", "b")'
            wrong = not isinstance(value, list | tuple | set | frozenset) or not all(isinstance(x, str) for x in value)
        else:
            continue
        if wrong:
            problems.append(f"{one.name} {value!r}: expected {words}")
    return problems


def allow() -> None:
    """Files that lie elsewhere may name plugins, too, from now on in this process."""
    global _allowed
    _allowed = True


def allowed() -> bool:
    return _allowed


def check_trusted(path: str | Path, specs: Sequence[str]) -> None:
    """Nothing, where the file that names plugins lies below the folder in which this process was started.

    Raises:
        ConfigError: it lies elsewhere, and nobody has allowed that.
    """
    here = Path.cwd()
    inside = Path(os.path.abspath(path)).is_relative_to(here) or Path(path).resolve().is_relative_to(here.resolve())
    if specs and not inside and not _allowed:
        raise ConfigError(
            f"{path}: plugins: names code that would run with your rights ({', '.join(map(str, specs))}), in a file "
            f"that lies outside the folder where you start ({here}); read that code, then copy both here, or give "
            "--allow-plugins (snakemake: --config allow_plugins=true)"
        )


def _what(thing: Any) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"of type {type(thing).__name__}"


def _told(error: BaseException) -> str:
    """What an exception says, in one line, and where it was raised."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    at = f" ({last.tb_frame.f_code.co_filename}, line {last.tb_lineno})" if last is not None else ""
    if isinstance(error, SyntaxError) and error.filename:
        at = f" ({error.filename}, line {error.lineno})"
    message = " ".join((error.msg if isinstance(error, SyntaxError) else str(error)).split())
    return f"{type(error).__name__}{': ' if message else ''}{message}{at}"
