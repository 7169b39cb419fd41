"""TIIF-Bench's 39 attributes, and which sub-scores and averages of the published table each counts for."""

from __future__ import annotations

from collections.abc import Collection

LENGTHS = ("short", "long")
# Mode official rounds accuracies to four decimals before it averages them.
ROUNDING = 1e-4

# The nine sub-scores, by the columns' names; `a+b` asks for both in one image.
SUBSCORES: dict[str, tuple[str, ...]] = {
    "attr": ("shape+color", "color+texture", "texture+color", "shape+texture"),
    "rela": ("2d_spatial_relation", "3d_spatial_relation", "action+2d", "action+3d"),
    "reas": ("numeracy", "negation", "differentiation", "comparison"),
    "attr_rela": (
        "action+color",
        "action+texture",
        *(f"{a}+{b}" for a in ("color", "shape", "texture") for b in ("2d", "3d")),
    ),
    "attr_reas": tuple(
        f"{a}+{b}" for a in ("numeracy", "comparison", "differentiation", "negation") for b in ("color", "texture")
    ),
    "rela_reas": tuple(
        f"{a}+{b}" for a in ("numeracy", "comparison", "differentiation", "negation") for b in ("2d", "3d")
    ),
    "text": ("text",),
    "style": ("style",),
    "real_world": ("real_world",),
}
ATTRIBUTES = tuple(attribute for attributes in SUBSCORES.values() for attribute in attributes)
BASIC = ("attr", "rela", "reas")
ADVANCED = ("attr_rela", "attr_reas", "rela_reas", "text", "style")
# In the order of the published table.
COLUMNS = ("overall", *BASIC, "basic_avg", *ADVANCED, "advanced_avg", "real_world")


def column_weights(present: Collection[str]) -> dict[str, dict[str, float]]:
    """Column -> attribute -> weight: every column is a weighted mean of attributes' accuracies.

    A sub-score is the mean of its attributes, basic_avg and advanced_avg are means of the 12 and the 26 attributes
    (not of sub-scores), overall is the mean of the nine sub-scores. Attributes that are not `present` leave these
    means, as officially, and a column without any is not there.
    """
    there = {name: [a for a in attributes if a in present] for name, attributes in SUBSCORES.items()}
    filled = {name: attributes for name, attributes in there.items() if attributes}
    basic, advanced = ([a for name in names for a in there[name]] for names in (BASIC, ADVANCED))
    columns = {**filled, "basic_avg": basic, "advanced_avg": advanced}
    weights = {name: {a: 1 / len(found) for a in found} for name, found in columns.items() if found}
    if filled:
        weights["overall"] = {a: 1 / len(found) / len(filled) for found in filled.values() for a in found}
    return {name: weights[name] for name in COLUMNS if name in weights}
