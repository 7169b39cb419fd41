"""The official prompt sets by name."""

from __future__ import annotations

from promptecho.config.benchmarks import official_sources
from promptecho.config.prompt_sources import Source
from promptecho.errors import ConfigError
from promptecho.suggest import maybe


def find_sources(names: list[str]) -> list[Source]:
    """The named sets, or all; a set's folder in a mirror is a name of it too.

    Raises:
        ConfigError: a name is unknown.
    """
    sources = official_sources()
    by_name = {alias: source for source in sources for alias in (source.mirror, source.name)}
    for name in names:
        if name not in by_name:
            known = [source.name for source in sources]
            raise ConfigError(f"{name}: no such prompt set; known: {', '.join(known)}{maybe(name, known)}")
    wanted = {by_name[name].name for name in names}
    return [source for source in sources if not names or source.name in wanted]
