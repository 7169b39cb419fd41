"""The oracle for scenes of the gallery: reads size and texture besides colour, shape and place, and learns nothing.

Each pixel is unmixed into background and the nearest palette colour, as in `promptecho.shapes.oracle`. The light parts
of a texture hold 40 % of the colour, so that an object stays one region of pixels; its mask is compared with the
templates of the shapes, and its texture is what repeats every four pixels inside of the mask.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from itertools import product

import numpy as np
from PIL import Image
from scipy import ndimage

from promptecho.gallery.captions import DenseClaim, DenseGroup
from promptecho.gallery.drawing import LIGHT, SCALE, texture_mask
from promptecho.gallery.scenes import RADII, Appearance, PlacedThing
from promptecho.shapes.oracle import CLEAN_IOU, GRID, _templates, directions, score_of
from promptecho.shapes.world import COLORS, IMAGE_SIZE

# Least score of an object; less than in `shapes`, whose objects are larger and of one colour.
WELL_FORMED = 0.85
SOLID = 0.27  # least share of a colour of a pixel that belongs to an object
MIN_AREA = 18  # pixels; the smallest object drawn covers about 30
EXTENT = {"circle": 1.04, "square": 0.935, "triangle": 0.935, "cross": 1.04, "ring": 1.04, "star": 0.89}  # box / radius
LEAST_DEPTH = 0.25  # of a texture, as a share of the colour; 0.6 as drawn
_PALETTE, _NAMES = np.array(list(COLORS.values()), np.float32), tuple(COLORS)
_BORDERS = ((RADII["small"][1] + RADII["medium"][0]) / 2, (RADII["medium"][1] + RADII["large"][0]) / 2)


@dataclass(frozen=True)
class DetectedThing:
    """One object found. `box` is (x1, y1, x2, y2) in pixels; `score` in 0-1 says how well-formed its shape is."""

    look: Appearance
    box: tuple[float, float, float, float]
    score: float


def as_detected(thing: PlacedThing) -> DetectedThing:
    """An object as the oracle finds it where nothing goes wrong."""
    box = (thing.x - thing.radius, thing.y - thing.radius, thing.x + thing.radius, thing.y + thing.radius)
    return DetectedThing(thing.look, box, 1.0)


def detect_things(image: Image.Image) -> list[DetectedThing]:
    """All objects of an image, largest first."""
    pixels = np.asarray(image.convert("RGB"), np.float32)
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    background = np.median(border, axis=0)
    direction = _PALETTE - background  # [C, 3]
    offset = pixels - background  # [H, W, 3]
    alpha = np.clip(offset @ direction.T / (direction**2).sum(1), 0, 1.1)  # [H, W, C]: how much of each colour
    residual = np.linalg.norm(offset[:, :, None] - alpha[..., None] * direction, axis=-1)
    nearest = residual.argmin(-1)
    ink = np.take_along_axis(alpha, nearest[..., None], -1)[..., 0]
    error = np.take_along_axis(residual, nearest[..., None], -1)[..., 0]
    solid = (ink > SOLID) & (error < 60)
    labels, n = ndimage.label(solid, structure=np.ones((3, 3)))
    found = []
    for label in range(1, n + 1):
        region = labels == label
        for color in _colors_in(region, nearest, ink):
            of_color = region if color is None else region & (nearest == color)
            parts, m = ndimage.label(of_color, structure=np.ones((3, 3)))
            for part in range(1, m + 1):
                core = parts == part
                area = int(core.sum())
                if area >= MIN_AREA:
                    votes = np.bincount(nearest[core], weights=ink[core] ** 2, minlength=len(_NAMES))
                    best = int(votes.argmax())
                    found.append((area, _read_thing(_NAMES[best], alpha[..., best], core)))
    return [detection for _, detection in sorted(found, key=lambda pair: -pair[0])]


def _colors_in(region: np.ndarray, nearest: np.ndarray, ink: np.ndarray) -> list[int | None]:
    """[None] where one colour holds a region (light and soft pixels may look like another), else its colours."""
    votes = np.bincount(nearest[region], weights=ink[region] > 0.6, minlength=len(_NAMES))
    strong = [index for index, count in enumerate(votes) if count >= MIN_AREA / 2]
    return list(strong) if len(strong) > 1 else [None]


def _read_thing(color: str, alpha: np.ndarray, core: np.ndarray) -> DetectedThing:
    inside = ndimage.binary_erosion(core, iterations=1)
    texture = _texture(alpha, core if inside.sum() < 12 else inside)
    full = 1.0 if texture == "plain" else LIGHT
    soft = np.where(ndimage.binary_dilation(core), np.clip(alpha / (0.95 * full), 0, 1), 0).astype(np.float32)
    rows, columns = np.where(soft.max(1) > 0.5)[0], np.where(soft.max(0) > 0.5)[0]
    if not len(rows) or not len(columns):
        rows, columns = np.where(core.any(1))[0], np.where(core.any(0))[0]
    y1, y2 = rows[0], rows[-1] + 1
    x1, x2 = columns[0], columns[-1] + 1
    patch = np.asarray(Image.fromarray(soft).resize((GRID, GRID), Image.Resampling.BILINEAR, box=(x1, y1, x2, y2)))
    names, ideals = _templates()
    ious = np.minimum(patch, ideals).sum((1, 2)) / np.maximum(patch, ideals).sum((1, 2))
    best = int((ious / np.array([CLEAN_IOU[name] for name in names])).argmax())
    shape, iou = names[best], float(ious[best])
    stretch = max((x2 - x1) / (y2 - y1), (y2 - y1) / (x2 - x1))
    radius = (x2 - x1 + y2 - y1) / 4 / EXTENT[shape]
    size = "small" if radius < _BORDERS[0] else "medium" if radius < _BORDERS[1] else "large"
    box = (float(x1), float(y1), float(x2), float(y2))
    return DetectedThing(Appearance(shape, color, size, texture), box, score_of(shape, iou, stretch))


@functools.cache
def _patterns() -> tuple[tuple[str, np.ndarray], ...]:
    """Each texture's light parts as drawn, moved by up to a pixel: name and [64, 64]."""
    found = []
    for name, shifts in (("striped", [(dy, 0) for dy in (0, 1, -1)]), ("dotted", list(product((0, 1, -1), repeat=2)))):
        pattern = texture_mask(name).reshape(IMAGE_SIZE, SCALE, IMAGE_SIZE, SCALE).mean((1, 3))
        found += [(name, np.roll(pattern, shift, (0, 1))) for shift in shifts]
    return tuple(found)


def _texture(alpha: np.ndarray, inside: np.ndarray) -> str:
    """The texture whose pattern explains most of what an object's interior varies by, if that is enough."""
    values = alpha[inside] - alpha[inside].mean()
    best, texture = 0.0, "plain"
    for name, pattern in _patterns():
        wave = pattern[inside] - pattern[inside].mean()
        power = float(wave @ wave)
        if power < 1e-6:
            continue
        depth = -float(values @ wave) / power  # as drawn: 1 - LIGHT
        explained = depth * depth * power
        if depth > LEAST_DEPTH and explained > best:
            best, texture = explained, name
    return texture


def _fits(group: DenseGroup, thing: DetectedThing) -> bool:
    look = thing.look
    said = look.shape == group.shape and group.color in (None, look.color) and group.size in (None, look.size)
    return said and (group.texture or "plain") == look.texture


def judge_dense(claim: DenseClaim, found: list[DetectedThing], min_score: float = WELL_FORMED) -> bool:
    """Whether an image shows exactly what a claim says: these objects, no others, in these relations."""
    if any(thing.score < min_score for thing in found) or len(found) != sum(g.count for g in claim.groups):
        return False
    left = list(found)
    # Groups that say more choose first, so that "a circle" does not take what "a small red circle" needs.
    order = sorted(range(len(claim.groups)), key=lambda i: -sum(v is not None for v in vars(claim.groups[i]).values()))
    chosen: dict[int, DetectedThing] = {}
    for index in order:
        group = claim.groups[index]
        matches = [thing for thing in left if _fits(group, thing)]
        if len(matches) < group.count:
            return False
        chosen[index] = matches[0]
        left = [thing for thing in left if thing not in matches[: group.count]]
    if any(name in (thing.look.shape, thing.look.color) for thing in found for name in claim.absent):
        return False
    return all(direction in directions(chosen[a], chosen[b]) for a, direction, b in claim.relations)  # type: ignore[arg-type]


def facts_shown(claim: DenseClaim, found: list[DetectedThing]) -> list[tuple[str, bool]]:
    """Each fact of a claim, by its kind, and whether an image shows it: for each group whether there is such a shape,
    how many there are, and of what colour, size and texture; each relation; each absence."""
    facts = []
    for group in claim.groups:
        same = [thing for thing in found if thing.look.shape == group.shape]
        facts.append(("object", bool(same)))
        facts.append(("count", len(same) == group.count))
        for kind, said in (("color", group.color), ("size", group.size), ("texture", group.texture)):
            if said:
                facts.append((kind, bool(same) and all(getattr(thing.look, kind) == said for thing in same)))
    for a, direction, b in claim.relations:
        pairs = [
            (one, other)
            for one in found
            for other in found
            if one is not other and _named(claim.groups[a], one) and _named(claim.groups[b], other)
        ]
        facts.append((direction, any(direction in directions(one, other) for one, other in pairs)))  # type: ignore[arg-type]
    for name in claim.absent:
        facts.append(("negation", not any(name in (thing.look.shape, thing.look.color) for thing in found)))
    return facts


def _named(group: DenseGroup, thing: DetectedThing) -> bool:
    return thing.look.shape == group.shape and group.color in (None, thing.look.color)
