"""Words that the rules for edits of captions know."""

from __future__ import annotations

# Not among them: words that are things or names as well (orange, rose, gold, silver, olive, violet).
COLORS = ("red", "green", "blue", "yellow", "purple", "black", "white", "brown", "pink", "gray")
NUMBERS = ("two", "three", "four", "five", "six", "seven", "eight", "nine")
# Plurals without s, which may follow a number.
PLURALS = {"people", "men", "women", "children", "sheep", "fish", "deer", "feet", "teeth", "mice", "geese", "birds"}
OPPOSITE_RELATIONS = {
    "to the left of": "to the right of", "to the right of": "to the left of",
    "above": "below", "below": "above", "in front of": "behind", "behind": "in front of",
}  # fmt: skip
# What makes of a relation something else, before it and after it.
NOT_RELATIONS = (
    ("left behind", "from above", "from behind", "from below", "as above", "far above", "see above", "described above"),
    ("behind the wheel", "behind bars", "behind the scenes", "above all", "above average", "below average"),
)  # fmt: skip
# Objects by kind: one is replaced by another of its row. The names are those of COCO's categories that are one word and
# mean one thing, and the embedded world's shapes.
OBJECTS = (
    ("bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat"),
    ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe"),
    ("backpack", "umbrella", "handbag", "suitcase"),
    ("bottle", "cup", "fork", "knife", "spoon", "bowl"),
    ("banana", "apple", "sandwich", "carrot", "pizza", "donut", "cake"),
    ("chair", "couch", "bed", "table"),
    ("laptop", "keyboard", "microwave", "oven", "toaster", "refrigerator"),
    ("man", "woman", "boy", "girl"),
    ("circle", "square", "triangle", "cross", "ring", "star"),
)
