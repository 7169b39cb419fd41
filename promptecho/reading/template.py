"""The page of coloured words: one template, switched by radio buttons and CSS alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

# One hue for log-probabilities (ColorBrewer's purples), orange against blue for changes: colour-blind people tell these
# apart (Harrower and Brewer, 2003). The scales begin at the colour of the page, so that what stands out is what is
# unexpected or changed. A word that became less likely is underlined, too, which a print in grey keeps.
LIGHT = {
    "p1": ("#efedf5", "#111"), "p2": ("#dadaeb", "#111"), "p3": ("#bcbddc", "#111"), "p4": ("#9e9ac8", "#111"),
    "p5": ("#756bb1", "#fff"), "p6": ("#54278f", "#fff"),
    "c-1": ("#fee0b6", "#111"), "c-2": ("#fdb863", "#111"), "c-3": ("#e08214", "#111"), "c-4": ("#a84f05", "#fff"),
    "c1": ("#d6e7f3", "#111"), "c2": ("#92c5de", "#111"), "c3": ("#4f9bc9", "#111"), "c4": ("#1f5f9f", "#fff"),
}  # fmt: skip
DARK = {
    "p1": ("#2b2842", "#eee"), "p2": ("#3b3464", "#eee"), "p3": ("#4f4389", "#fff"), "p4": ("#6a5fa9", "#fff"),
    "p5": ("#a9a3d4", "#111"), "p6": ("#dedaf2", "#111"),
    "c-1": ("#43300f", "#eee"), "c-2": ("#6d4a0f", "#fff"), "c-3": ("#b86f14", "#111"), "c-4": ("#fdb863", "#111"),
    "c1": ("#14304a", "#eee"), "c2": ("#1d4d78", "#fff"), "c3": ("#4a8fc4", "#111"), "c4": ("#9fd0f0", "#111"),
}  # fmt: skip

_PAGE = Path(__file__).with_name("page.txt")


def variables(scale: dict[str, tuple[str, str]]) -> str:
    """A scale as variables of a style sheet: --NAME is the ground, --NAME-ink the letters on it."""
    return " ".join(f"--{name}: {ground}; --{name}-ink: {ink};" for name, (ground, ink) in scale.items())


def render(*, rows: list[dict[str, Any]], changes: bool, base: str, **values: Any) -> str:
    """The page as text. All that comes from outside (prompts, names, tokens) is escaped by the template."""
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    sides = [step for step in range(-4, 5) if step]
    views = [("p", "p", range(1, 7)), *([("c", "c", sides)] if changes else []), *([("b", "c", sides)] if base else [])]
    return environment.from_string(_PAGE.read_text(encoding="utf-8")).render(
        rows=rows,
        changes=changes,
        base=base,
        alone=all(len(row["images"]) == 1 for row in rows),
        views=views,
        light=LIGHT,
        dark=DARK,
        variables=variables,
        **values,
    ).rstrip()  # fmt: skip
