"""The object names of GenEval, in the order of a COCO detector's 80 classes.

Names and order are those of GenEval's object_names.txt (github.com/djghosh13/geneval, af4902f; MIT licence,
Copyright (c) 2023 Dhruba Ghosh). Three are not COCO's ("computer mouse", "tv remote", "computer keyboard"), and
converted checkpoints carry older spellings of others ("sofa", "tvmonitor"), so a detector's label is a position in
this list and its own names are never looked up.
"""

from __future__ import annotations

from collections.abc import Mapping

from promptecho.errors import ModelError

_NAMES = """
person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, computer mouse,
tv remote, computer keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors,
teddy bear, hair drier, toothbrush
"""
CLASSES = tuple(" ".join(name.split()) for name in _NAMES.split(","))

# Spelt alike in every list of COCO's names, and spread over it: a label order that is not COCO's moves one of them.
ANCHORS = {0: "person", 5: "bus", 16: "dog", 21: "bear", 41: "cup", 55: "cake", 75: "vase", 79: "toothbrush"}


def check_labels(path: str, num_labels: int, id2label: Mapping[int, str]) -> None:
    """Refuse a detector whose labels are not COCO's 80 in COCO's order. Unnamed labels ("LABEL_7") are believed.

    Raises:
        ModelError: another number of labels (a panoptic checkpoint has 133), or another order.
    """
    if num_labels != len(CLASSES):
        raise ModelError(
            f"{path}: detects {num_labels} classes, GenEval needs COCO's {len(CLASSES)}; use an instance"
            " segmentation checkpoint trained on COCO"
        )
    for index, name in ANCHORS.items():
        found = id2label.get(index, f"LABEL_{index}")
        if found not in (name, f"LABEL_{index}"):
            raise ModelError(
                f"{path}: its label {index} is {found!r}, in COCO's order it is {name!r}; use a model trained on COCO"
            )
