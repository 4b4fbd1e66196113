"""What is in a picture of the shapes world: hue, connected components, shape by overlap with templates.

A pixel belongs to the palette colour of nearest hue if it is coloured enough; 8-connected pixels of one colour are a
component; a component takes the shape whose template, centred and scaled to the same area, overlaps it most
(intersection over union). Everything works on whole batches with numpy alone.
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewards.shapes.captions import COLORS, SHAPES
from rewards.shapes.render import RGB, shape_mask
from rewards.shapes.scenes import SIZE, Thing

Floats = NDArray[np.float32]
Integers = NDArray[np.int64]

MIN_AREA = 18  # pixels; smaller components are noise
MIN_OVERLAP = 0.74  # below it a component has no recognisable shape
MIN_CHROMA = 0.46  # of the palette colour's own chroma; less is ground
BLOB = "blob"

_GRID = 32  # side of the template grid
_GRID_AREA = 260.0  # pixels of every template on that grid
_TILT = 0.35  # radians, the largest rotation among the templates
_PALETTE = np.array([RGB[color] for color in COLORS]) / 255
_HUES = np.array([colorsys.rgb_to_hsv(*color)[0] for color in _PALETTE], np.float32)
_CHROMA = np.asarray(_PALETTE.max(1) - _PALETTE.min(1), np.float32)


@dataclass(frozen=True)
class Detected:
    """A component found in a picture.

    Attributes:
        shape: a name from `SHAPES`, or "blob" where no shape fits.
        color: a name from `COLORS`.
        x, y: centroid in pixels of the 64 x 64 picture, y downwards.
        area: pixels.
        overlap: intersection over union with the best template, in [0, 1].
    """

    shape: str
    color: str
    x: float
    y: float
    area: int
    overlap: float


def detect(images: Floats) -> tuple[tuple[Detected, ...], ...]:
    """The components of each picture, largest first; `images` is (N, 64, 64, 3) in [0, 1]."""
    colors = _color_of_pixels(images)
    labels = _components(colors)
    roots, areas = np.unique(labels[colors >= 0], return_counts=True)
    roots, areas = roots[areas >= MIN_AREA], areas[areas >= MIN_AREA]
    found: list[list[Detected]] = [[] for _ in images]
    if len(roots) == 0:
        return tuple(() for _ in images)
    owners = roots // (SIZE * SIZE)
    masks = labels[owners] == roots[:, None, None]  # (components, 64, 64)
    centres = _centroids(masks)
    overlaps = _overlaps(masks, centres, areas)  # (components, shapes)
    for row in np.lexsort((roots, -areas)):
        shape = int(overlaps[row].argmax())
        overlap = float(overlaps[row, shape])
        name = SHAPES[shape] if overlap >= MIN_OVERLAP else BLOB
        color = COLORS[int(colors.reshape(-1)[roots[row]])]
        x, y = centres[row].tolist()
        found[owners[row]].append(Detected(name, color, x, y, int(areas[row]), overlap))
    return tuple(map(tuple, found))


def _color_of_pixels(images: Floats) -> Integers:
    """Index into `COLORS` of each pixel, -1 for ground; (N, 64, 64)."""
    top, low = images.max(-1), images.min(-1)
    chroma = top - low
    safe = np.where(chroma > 1e-6, chroma, 1)
    red, green, blue = np.moveaxis(images, -1, 0)
    sextant = np.where(
        top == red,
        ((green - blue) / safe) % 6,
        np.where(top == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    distance = np.abs(sextant[..., None] / 6 % 1 - _HUES)
    nearest = np.minimum(distance, 1 - distance).argmin(-1)
    return np.where(chroma > MIN_CHROMA * _CHROMA[nearest], nearest, -1)


def _components(colors: Integers) -> Integers:
    """For each pixel the flat index of the first pixel of its 8-connected component of one colour; (N, 64, 64).

    Every pixel takes the smallest index among its equal neighbours, then follows it (pointer jumping), until nothing
    changes: about ten rounds whatever the shape.
    """
    labels = np.arange(colors.size, dtype=np.int64).reshape(colors.shape)
    pairs = [(a, b, (colors[a] == colors[b]) & (colors[a] >= 0)) for a, b in _NEIGHBOURS]
    while True:
        before = labels.copy()
        for a, b, same in pairs:
            smaller = np.minimum(labels[a], labels[b])
            labels[a] = np.where(same, smaller, labels[a])
            labels[b] = np.where(same, np.minimum(smaller, labels[b]), labels[b])  # b overlaps a: keep a's gain
        labels = labels.reshape(-1)[labels]
        if np.array_equal(labels, before):
            return labels


_ALL, _HEAD, _TAIL = slice(None), slice(None, -1), slice(1, None)
_NEIGHBOURS = (
    ((_ALL, _ALL, _HEAD), (_ALL, _ALL, _TAIL)),
    ((_ALL, _HEAD, _ALL), (_ALL, _TAIL, _ALL)),
    ((_ALL, _HEAD, _HEAD), (_ALL, _TAIL, _TAIL)),
    ((_ALL, _HEAD, _TAIL), (_ALL, _TAIL, _HEAD)),
)


def _centroids(masks: NDArray[np.bool_]) -> Floats:
    """(components, 2): mean x and mean y of each mask."""
    area = masks.sum((1, 2))
    along = np.arange(SIZE)
    return np.stack([masks.sum(1) @ along / area, masks.sum(2) @ along / area], axis=1).astype(np.float32)


def _overlaps(masks: NDArray[np.bool_], centres: Floats, areas: Integers) -> Floats:
    """Best intersection over union of each component with the templates of each shape; (components, shapes)."""
    shapes = _resampled(masks, centres, areas)
    sums = shapes.sum(1)
    best = np.empty((len(masks), len(SHAPES)), np.float32)
    for row, shape in enumerate(shapes):
        common = np.minimum(_TEMPLATES, shape).sum(-1)  # (shapes, templates)
        best[row] = (common / (_TEMPLATES.sum(-1) + sums[row] - common)).max(1)
    return best


def _resampled(masks: NDArray[np.bool_], centres: Floats, areas: Integers) -> Floats:
    """Each mask on the template grid, centroid in the middle, area normalised, bilinear; (components, grid * grid)."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1))).astype(np.float32)
    steps = (np.arange(_GRID) - (_GRID - 1) / 2) * np.sqrt(areas / _GRID_AREA)[:, None]  # (components, grid)
    x, y = (np.clip(steps + centres[:, axis, None] + 1, 0, SIZE + 0.999) for axis in (0, 1))
    left, top = x.astype(np.int64), y.astype(np.int64)
    right_share, low_share = (x - left)[:, None, :], (y - top)[:, :, None]
    which = np.arange(len(masks))[:, None, None]
    rows, columns = top[:, :, None], left[:, None, :]
    upper = padded[which, rows, columns] * (1 - right_share) + padded[which, rows, columns + 1] * right_share
    lower = padded[which, rows + 1, columns] * (1 - right_share) + padded[which, rows + 1, columns + 1] * right_share
    blended = upper * (1 - low_share) + lower * low_share
    return np.asarray(blended.reshape(len(masks), -1), np.float32)


def _templates(shape: str, radii: Sequence[float] = (7.5, 12.0)) -> Floats:
    """Templates of one shape over rotations and two sizes, (templates, grid * grid)."""
    middle = (SIZE - 1) / 2
    poses = [(float(angle), radius) for angle in np.linspace(-_TILT, _TILT, 11) for radius in radii]
    masks = np.stack([shape_mask(Thing(shape, "", middle, middle, radius, angle)) > 0.5 for angle, radius in poses])
    return _resampled(masks, _centroids(masks), masks.sum((1, 2)))


_TEMPLATES = np.stack([_templates(shape) for shape in SHAPES])  # (shapes, templates, grid * grid)
