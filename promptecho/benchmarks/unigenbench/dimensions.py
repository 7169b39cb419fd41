"""UniGenBench++'s ten dimensions and their 27 sub-dimensions, by their English names and by the Chinese ones.

The names are those of the official prompt files. A dimension without parts, such as Style, is its own sub-dimension.
"""

from __future__ import annotations

# The official prompt files, which lie in data/ of the repository, and how many prompts each has.
FILES = {
    "test_prompts_en.csv": 600,
    "test_prompts_en_long.csv": 600,
    "test_prompts_zh.csv": 600,
    "test_prompts_zh_long.csv": 600,
}
LANGUAGES = ("en", "zh")

# Dimension -> its label in the published tables, and its parts by name -> (label there, Chinese name). Their order.
_DIMENSIONS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "Style": ("Style", {"": ("", "风格")}),
    "World Knowledge": ("World Knowledge", {"": ("", "世界知识")}),
    "Attribute": (
        "Attribute",
        {
            "Quantity": ("Quantity", "属性-数量"),
            "Expression": ("Expression", "属性-表情"),
            "Material": ("Material", "属性-材质"),
            "Size": ("Size", "属性-大小"),
            "Shape": ("Shape", "属性-形状"),
            "Color": ("Color", "属性-颜色"),
        },
    ),
    "Action": (
        "Action",
        {
            "Hand (Character/Anthropomorphic)": ("Hand", "动作-人物/拟人手部动作"),
            "Full-body (Character/Anthropomorphic)": ("Full body", "动作-人物/拟人全身动作"),
            "Animal": ("Animal", "动作-动物动作"),
            "Non-contact Interaction": ("Non-contact", "动作-实体间无接触互动"),
            "Contact Interaction": ("Contact", "动作-实体间有接触互动"),
            "State": ("State", "动作-状态"),
        },
    ),
    "Relationship": (
        "Relationship",
        {
            "Composition": ("Composition", "关系-构成关系"),
            "Similarity": ("Similarity", "关系-相似关系"),
            "Inclusion": ("Inclusion", "关系-包含关系"),
            "Comparison": ("Comparison", "关系-比较关系"),
        },
    ),
    "Compound": (
        "Compound",
        {
            "Imagination": ("Imagination", "复合考点-想象力"),
            "Feature Matching": ("Feature matching", "复合考点-不同实体特征匹配"),
        },
    ),
    "Grammar": (
        "Grammar",
        {
            "Pronoun Reference": ("Pronoun reference", "语法-代词指代"),
            "Consistency": ("Consistency", "语法-统一性"),
            "Negation": ("Negation", "语法-否定"),
        },
    ),
    "Entity Layout": (
        "Layout",
        {
            "Two-Dimensional Space": ("2D", "实体布局-二维空间"),
            "Three-Dimensional Space": ("3D", "实体布局-三维空间"),
        },
    ),
    "Logical Reasoning": ("Logical Reasoning", {"": ("", "逻辑推理")}),
    "Text Generation": ("Text", {"": ("", "文本生成")}),
}


def _name(dimension: str, part: str) -> str:
    return f"{dimension} - {part}" if part else dimension


# Dimension -> label, in the order of the published tables.
DIMENSIONS = {dimension: label for dimension, (label, _) in _DIMENSIONS.items()}
# Sub-dimension -> label, of those dimensions that have parts.
PARTS = {
    _name(dimension, part): label
    for dimension, (_, parts) in _DIMENSIONS.items()
    for part, (label, _) in parts.items()
    if part
}
# Language -> name in prompt files -> sub-dimension.
SUBDIMENSIONS: dict[str, dict[str, str]] = {
    "en": {_name(dimension, part): _name(dimension, part) for dimension, (_, p) in _DIMENSIONS.items() for part in p},
    "zh": {
        chinese: _name(dimension, part)
        for dimension, (_, parts) in _DIMENSIONS.items()
        for part, (_, chinese) in parts.items()
    },
}


def dimension_of(subdimension: str) -> str:
    """The dimension that a sub-dimension is part of."""
    return subdimension.partition(" - ")[0]
