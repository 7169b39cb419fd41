"""Score items as columns: what was judged, and the outcomes.

A table is made of hundreds of files with thousands of items each, and most of them judged the same images. Such files
share one `ItemKeys`, with all that follows from it (the order of the items, their prompts, their groups), and each has
only an array of outcomes of its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, overload

import numpy as np

if TYPE_CHECKING:
    from promptecho.scores import ScoreItem

T = TypeVar("T", bound=Hashable)


class LightItem(NamedTuple):
    """A `ScoreItem` that is not validated again."""

    prompt_id: str
    image_index: int
    group: str
    outcome: float | None
    failed: bool

    def model_copy(self, *, update: Mapping[str, Any]) -> LightItem:
        """As that of a pydantic model."""
        return self._replace(**update)


class _Coded(NamedTuple):
    """A column as numbers int64 [n]: `names` are its distinct values, sorted, and `codes` their places in it."""

    names: list[Any]
    codes: np.ndarray

    @classmethod
    def of(cls, values: Sequence[Any]) -> _Coded:
        names = sorted(set(values))
        places = {name: place for place, name in enumerate(names)}
        return cls(names, np.array([places[value] for value in values], np.int64))

    def values(self) -> list[Any]:
        return [self.names[code] for code in self.codes.tolist()]

    def there(self, rows: Any) -> list[Any]:
        """The distinct values of some rows, sorted."""
        return [self.names[code] for code in np.unique(self.codes[rows]).tolist()]


@dataclass(frozen=True)
class Clusters:
    """Items taken together by group and prompt.

    `order` int [n]: the items sorted by group, prompt and image; `cluster` int [n]: the number of the cluster of each,
    in that order; `counts` float [clusters]: its items. `groups`: name, clusters and sorted items of each group.
    """

    order: np.ndarray
    cluster: np.ndarray
    counts: np.ndarray
    groups: list[tuple[str, slice, slice]]


class ItemKeys:
    """Prompt, image and group of each item, in the order of a file. Not to be changed."""

    def __init__(self, prompts: _Coded, images: _Coded, groups: _Coded):
        self.prompts, self.images, self.groups = prompts, images, groups
        self._derived: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.prompts.codes)

    def derived(self, key: Any, make: Callable[[], Any]) -> Any:
        """What `make` returns, which follows from these keys and `key` alone; made once."""
        if key not in self._derived:
            self._derived[key] = make()
        return self._derived[key]

    def columns(self) -> tuple[list[str], list[int], list[str]]:
        """Prompt ids, image indices and groups."""
        return self.prompts.values(), self.images.values(), self.groups.values()

    def same(self, other: ItemKeys) -> bool:
        """Whether these are the same items in the same order."""
        return self is other or len(self) == len(other) and self.columns() == other.columns()

    @functools.cached_property
    def unique(self) -> bool:
        """Whether no image of a prompt occurs twice."""
        return len(np.unique(self.prompts.codes * len(self.images.names) + self.images.codes)) == len(self)

    def take(self, rows: np.ndarray) -> ItemKeys:
        """Those of some items."""
        return ItemKeys(*(_Coded(one.names, one.codes[rows]) for one in (self.prompts, self.images, self.groups)))

    def in_groups(self, names: frozenset[str]) -> tuple[np.ndarray, ItemKeys]:
        """The items of some groups, and their keys."""

        def make() -> tuple[np.ndarray, ItemKeys]:
            chosen = np.array([name in names for name in self.groups.names], bool)
            rows = np.flatnonzero(chosen[self.groups.codes])
            return rows, self.take(rows)

        return self.derived(names, make)

    def repeated(self, times: int) -> ItemKeys:
        """The same items `times` times; each time their images are further ones of the prompts."""

        def make() -> ItemKeys:
            images = self.images.values()
            stride = 1 + max(images, default=0)
            prompts, groups = (_Coded(one.names, np.tile(one.codes, times)) for one in (self.prompts, self.groups))
            return ItemKeys(prompts, _Coded.of([one + k * stride for k in range(times) for one in images]), groups)

        return self.derived(times, make)

    def clusters(self, one_group: str | None = None) -> Clusters:
        """Items by group and prompt; with `one_group` all are of that group."""

        def make() -> Clusters:
            groups = np.zeros(len(self), np.int64) if one_group else self.groups.codes
            order = np.lexsort((self.images.codes, self.prompts.codes, groups))
            group, prompt = groups[order], self.prompts.codes[order]
            starts = np.flatnonzero(_new(group) | _new(prompt))
            firsts = np.flatnonzero(_new(group))
            cluster = np.cumsum(_new(group) | _new(prompt)) - 1
            items = [*firsts.tolist(), len(self)]
            found = []
            for first, last in zip(items, items[1:], strict=False):
                name = one_group or self.groups.names[group[first]]
                found.append((name, slice(int(cluster[first]), int(cluster[last - 1]) + 1), slice(first, last)))
            return Clusters(order, cluster, np.diff(starts, append=len(self)).astype(float), found)

        return self.derived(("clusters", one_group), make)


class ItemColumns(Sequence[Any]):
    """Items as two parts: `keys`, and `outcomes` float [n], NaN where the item failed. As a sequence, `LightItem`s."""

    def __init__(self, keys: ItemKeys, outcomes: np.ndarray):
        self.keys, self.outcomes = keys, outcomes
        self.failed = np.isnan(outcomes)

    def __len__(self) -> int:
        return len(self.outcomes)

    @overload
    def __getitem__(self, index: int) -> LightItem: ...
    @overload
    def __getitem__(self, index: slice) -> list[LightItem]: ...
    def __getitem__(self, index: int | slice) -> LightItem | list[LightItem]:
        return list(self)[index]

    def __iter__(self) -> Iterator[LightItem]:
        outcomes, failed = self.outcomes.tolist(), self.failed.tolist()
        told = (None if lost else outcome for outcome, lost in zip(outcomes, failed, strict=True))
        return map(LightItem, *self.keys.columns(), told, failed)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ItemColumns):
            return NotImplemented
        return self.keys.same(other.keys) and np.array_equal(self.outcomes, other.outcomes, equal_nan=True)

    __hash__ = None  # type: ignore[assignment]  # holds an array

    def take(self, rows: np.ndarray) -> ItemColumns:
        """Some of the items."""
        return ItemColumns(self.keys.take(rows), self.outcomes[rows])

    def judged(self) -> ItemColumns:
        """The items that have an outcome."""
        return self.take(np.flatnonzero(~self.failed)) if self.failed.any() else self


def columns_of(items: Sequence[ScoreItem]) -> ItemColumns:
    """Items as columns, which those of a score file that a table has read are already."""
    if isinstance(items, ItemColumns):
        return items
    names = ("prompt_id", "image_index", "group")
    keys = ItemKeys(*(_Coded.of([getattr(item, name) for item in items]) for name in names))
    return ItemColumns(keys, np.array([np.nan if item.outcome is None else item.outcome for item in items], float))


@functools.lru_cache(maxsize=8)
def shared_keys(prompt_ids: tuple[str, ...], image_indices: tuple[int, ...], groups: tuple[str, ...]) -> ItemKeys:
    """Keys that are one object for files that judged the same things in the same order."""
    return ItemKeys(_Coded.of(prompt_ids), _Coded.of(image_indices), _Coded.of(groups))


def in_groups(items: Sequence[ScoreItem], names: Collection[str]) -> ItemColumns:
    """The items of some groups."""
    found = columns_of(items)
    rows, keys = found.keys.in_groups(frozenset(names))
    return ItemColumns(keys, found.outcomes[rows])


def groups_of(items: Sequence[ScoreItem], *, judged: bool = False) -> set[str]:
    """The groups of items; `judged`: of those alone that have an outcome."""
    found = columns_of(items)
    return set(found.keys.groups.there(~found.failed if judged else slice(None)))


def prompts_of(items: Sequence[ScoreItem], *, judged: bool = False) -> set[str]:
    """The prompts of items; `judged`: of those alone that have an outcome."""
    found = columns_of(items)
    return set(found.keys.prompts.there(~found.failed if judged else slice(None)))


def images_of(items: Sequence[ScoreItem]) -> set[tuple[str, int]]:
    """Prompt id and image index of each item."""
    keys = columns_of(items).keys
    return keys.derived("images", lambda: set(zip(*keys.columns()[:2], strict=True)))


def _new(values: np.ndarray) -> np.ndarray:
    """Whether each value is another than the one before it: bool [n]."""
    first = np.ones(len(values), bool)
    first[1:] = values[1:] != values[:-1]
    return first
