"""What Snakemake's command line says beside what Snakemake takes from it."""

from __future__ import annotations

from collections.abc import Sequence

NAMES = ("--config", "-C")


def lost_settings(words: Sequence[str], taken: Sequence[str]) -> list[str]:
    """Settings that Snakemake leaves out without a word: of several `--config` it takes the last one alone.

    Args:
        words: the command line, without the program.
        taken: the settings that Snakemake has taken. Where they are not the last ones of the line, it is another
            program's, and nothing is known of it.
    """
    groups: list[list[str]] = []
    goes_on = False  # whether a word without a dash belongs to the last group
    for word in words:
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if word in NAMES:
            groups.append([])
            goes_on = True
        elif equals and name == "--config":
            groups.append([value])
            goes_on = False
        elif word.startswith("-C"):
            groups.append([word.removeprefix("-C")])
            goes_on = False
        elif word.startswith("-"):
            goes_on = False
        elif goes_on:
            groups[-1].append(word)
    if not groups or groups[-1] != list(taken):
        return []
    return [setting for group in groups[:-1] for setting in group if setting not in taken]
