"""The renderer of the shapes world: scenes become pictures of 64 x 64 pixels on light grounds.

Grounds are nearly grey (value 0.84 to 0.97) with a soft gradient and, in half of the pictures, a soft texture; things
are shaded from the upper left. Edges are supersampled four times.
"""

from random import Random

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from rewards.shapes.captions import SHAPES
from rewards.shapes.scenes import SIZE, Scene, Thing

RGB = {  # 0..255; neighbouring hues at least 22 degrees apart, so that a test on hue separates them
    "red": (222, 38, 42),
    "orange": (245, 128, 20),
    "yellow": (247, 216, 38),
    "green": (46, 168, 72),
    "cyan": (50, 196, 214),
    "blue": (40, 84, 220),
    "purple": (140, 58, 186),
    "pink": (244, 128, 190),
}
_SUPERSAMPLING = 4
_ROWS, _COLUMNS = np.mgrid[0:SIZE, 0:SIZE].astype(np.float32)


def render(scene: Scene, rng: Random) -> NDArray[np.uint8]:
    """The picture of `scene`, (64, 64, 3) uint8; `rng` draws ground, tint and shading."""
    generator = np.random.default_rng(rng.getrandbits(32))
    image = _ground(generator)
    for thing in scene.things:
        coverage = shape_mask(thing)[..., None]
        image = image * (1 - coverage) + _surface(thing, generator) * coverage
    return np.asarray(np.clip(image, 0, 1) * 255 + 0.5, dtype=np.uint8)


def shape_mask(thing: Thing) -> NDArray[np.float32]:
    """Coverage of each pixel by `thing`, (64, 64) in [0, 1]."""
    cos, sin = np.cos(thing.angle), np.sin(thing.angle)
    points = _OUTLINES[thing.shape] @ np.array([[cos, sin], [-sin, cos]]) * thing.radius + (thing.x, thing.y)
    canvas = Image.new("L", (SIZE * _SUPERSAMPLING, SIZE * _SUPERSAMPLING))
    ImageDraw.Draw(canvas).polygon([(x, y) for x, y in (points * _SUPERSAMPLING).tolist()], fill=255)
    return np.asarray(canvas.reduce(_SUPERSAMPLING), np.float32) / np.float32(255)


def outline(shape: str) -> NDArray[np.float64]:
    """Polygon of `shape` about its centre with circumradius about 1, (points, 2), y downwards."""
    turn = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    if shape == "circle":
        return 0.95 * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    if shape == "square":
        return 0.86 * np.array([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    if shape == "triangle":
        return _spokes(np.full(3, 1.15))
    if shape == "star":
        return _spokes(np.tile([1.2, 0.5], 5))
    if shape == "heart":
        x = 16 * np.sin(turn) ** 3
        y = 13 * np.cos(turn) - 5 * np.cos(2 * turn) - 2 * np.cos(3 * turn) - np.cos(4 * turn)
        return np.stack([x, 1.5 - y], axis=1) / 15.5
    arm, half = 1.05, 0.36
    corner = np.array([[-half, -arm], [half, -arm], [half, -half]])
    return np.concatenate([corner @ np.linalg.matrix_power(np.array([[0, 1], [-1, 0]]), k) for k in range(4)])


def _spokes(radii: NDArray[np.float64]) -> NDArray[np.float64]:
    turn = -np.pi / 2 + np.arange(len(radii)) * 2 * np.pi / len(radii)
    return np.stack([radii * np.cos(turn), radii * np.sin(turn)], axis=1)


_OUTLINES = {shape: outline(shape) for shape in SHAPES}


def _ground(generator: np.random.Generator) -> NDArray[np.float64]:
    """A light ground, (64, 64, 3) in about [0.7, 1.05]."""
    color = generator.uniform(0.84, 0.97) + generator.uniform(-0.025, 0.025, 3)
    turn = generator.uniform(0, 2 * np.pi)
    slope = np.cos(turn) * (_COLUMNS / (SIZE - 1) - 0.5) + np.sin(turn) * (_ROWS / (SIZE - 1) - 0.5)
    ground = color + (generator.uniform(0, 0.07) * slope)[..., None]
    if generator.random() < 0.5:
        coarse = Image.fromarray((generator.random((9, 9)) * 255).astype(np.uint8))
        texture = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC), np.float64) / 255
        ground = ground + (texture - 0.5)[..., None] * 0.06
    return np.asarray(ground, np.float64)


def _surface(thing: Thing, generator: np.random.Generator) -> NDArray[np.float64]:
    """Colour of `thing` at every pixel, lit from the upper left, (64, 64, 3)."""
    color = np.array(RGB[thing.color]) / 255 * generator.uniform(0.94, 1.06) + generator.uniform(-0.02, 0.02, 3)
    depth = (_COLUMNS - thing.x + _ROWS - thing.y) / (2 * thing.radius)
    shade = 1 - generator.uniform(0.04, 0.13) * np.clip(depth, -1.2, 1.2)
    return np.asarray(color * shade[..., None], np.float64)
