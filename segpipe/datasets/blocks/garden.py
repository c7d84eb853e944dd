"""What the scenes are drawn with: ground textures, and lit objects with soft shadows and exact outlines (signed distances).

Only operations that IEEE 754 rounds exactly are used (no sin, exp, normal deviates or parallel sums), so the pictures are equal,
byte for byte, on every machine. Coordinates are pixels, x to the right and y down, pixel centres at whole numbers. Every drawing
function takes the same number of random draws whatever its other arguments are, so that a changed argument moves nothing else.
"""

from collections.abc import Callable, Sequence

import numpy as np

Field = Callable[[np.ndarray, np.ndarray], np.ndarray]
Spot = tuple[float, float]

DISC_COLOURS = ((62, 104, 178), (226, 226, 220), (196, 70, 66), (118, 82, 156), (52, 148, 158))
BOX_COLOURS = ((196, 146, 86), (214, 180, 112), (156, 120, 92), (110, 146, 156))
POLE_COLOURS = (((240, 238, 232), (206, 58, 50)), ((238, 202, 62), (44, 44, 48)), ((232, 236, 240), (64, 92, 150)))
STAR_TIPS = ((0.0, -1.0), (0.951057, -0.309017), (0.587785, 0.809017), (-0.587785, 0.809017), (-0.951057, -0.309017))


class Canvas:
    """The picture being drawn: colours float64 (H, W, 3), labels, instance numbers, and the light that casts the shadows."""

    def __init__(self, ground: np.ndarray, *, light: Spot) -> None:
        self.image, self.light = ground, light
        self.height, self.width = ground.shape[:2]
        self.mask = np.zeros((self.height, self.width), np.uint8)
        self.instances = np.zeros((self.height, self.width), np.uint16)
        self.objects: list[int] = []
        """The label of each object, in the order of drawing; instance n is `objects[n - 1]`."""
        self.taken: list[tuple[float, float, float]] = []
        """Circles (x, y, radius) that `free_spot` keeps away from."""

    def paint(self, shape: Field, colour: Field, *, centre: Spot, reach: float, label: int, lift: float) -> None:
        """Draw one object over its shadow.

        `shape(x, y)` is the signed distance to its outline (negative inside) and `colour(x, y)` its colour (..., 3); the object
        lies within `reach` of `centre`, `lift` pixels above the ground. The picture is antialiased, labels are those of the
        pixels' centres.
        """
        x0, x1 = (int(min(max(0, centre[0] + s * (reach + 2 * lift) + s), self.width)) for s in (-1, 1))
        y0, y1 = (int(min(max(0, centre[1] + s * (reach + 2 * lift) + s), self.height)) for s in (-1, 1))
        view = slice(y0, y1), slice(x0, x1)
        y, x = np.mgrid[y0:y1, x0:x1].astype(np.float64)
        shade = 1 - _smooth((shape(x + self.light[0] * lift, y + self.light[1] * lift) + 0.6 * lift) / (1.6 * lift))
        self.image[view] *= 1 - 0.55 * shade[..., None]
        distance = shape(x, y)
        cover = np.clip(0.5 - distance, 0, 1)[..., None]
        self.image[view] = self.image[view] * (1 - cover) + colour(x, y) * cover
        self.objects.append(label)
        self.mask[view][distance < 0] = label
        self.instances[view][distance < 0] = len(self.objects)

    def free_spot(self, rng: np.random.Generator, radius: float) -> Spot | None:
        """A centre for a circle that lies inside the picture and off all taken ones, which it joins; None if 40 draws find none."""
        found = None
        for x, y in rng.random((40, 2)):
            x, y = radius + x * (self.width - 2 * radius), radius + y * (self.height - 2 * radius)
            if found is None and self._is_free(x, y, radius + 2):
                found = (float(x), float(y))
        if found is not None:
            self.taken.append((*found, radius))
        return found

    def _is_free(self, x: float, y: float, radius: float) -> bool:
        return all((x - a) ** 2 + (y - b) ** 2 > (radius + r) ** 2 for a, b, r in self.taken)

    def cluster(self, rng: np.random.Generator, *, count: int, label: int) -> None:
        """Discs that each touch an earlier one of the cluster; one that finds no room is left out."""
        placed: list[tuple[float, float, float]] = []
        for _ in range(count):
            radius, base = between(rng, 5.0, 9.5), jittered(rng, DISC_COLOURS[int(rng.integers(len(DISC_COLOURS)))])
            spot = self._spot_beside(rng, placed, radius) if placed else self.free_spot(rng, radius)
            if spot is not None:
                disc(self, spot, radius=radius, base=base, label=label)
                placed.append((*spot, radius))

    def _spot_beside(self, rng: np.random.Generator, placed: Sequence[tuple[float, float, float]], radius: float) -> Spot | None:
        for _ in range(10):
            x, y, r = placed[int(rng.integers(len(placed)))]
            dx, dy = direction(rng)
            x, y = x + dx * (r + radius - 0.4), y + dy * (r + radius - 0.4)
            if self._is_free(x, y, radius - 0.5) and -2 < x < self.width + 2 and -2 < y < self.height + 2:
                self.taken.append((x, y, radius))
                return x, y
        return None

    def finish(self, rng: np.random.Generator) -> np.ndarray:
        """uint8 (H, W, 3): the picture under its light (brightness, warmth, fall-off, vignette) with a little sensor noise."""
        gain, warmth = between(rng, 0.86, 1.1), between(rng, -0.05, 0.06)
        y, x = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j]
        falloff = 1 - 0.12 * (x * x + y * y) + 0.08 * (x * self.light[0] + y * self.light[1])
        tint = gain * np.array([1 + warmth, 1.0, 1 - warmth])
        grain = rng.integers(-4, 5, (self.height, self.width, 3)) + rng.integers(-2, 3, (self.height, self.width, 1))
        return np.rint(np.clip(self.image * falloff[..., None] * tint + grain, 0, 255)).astype(np.uint8)


def disc(canvas: Canvas, spot: Spot, *, radius: float, base: np.ndarray, label: int) -> None:
    """A domed round token."""
    cx, cy = spot
    lx, ly = canvas.light

    def shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sqrt((x - cx) ** 2 + (y - cy) ** 2) - radius

    def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = (x - cx) / radius, (y - cy) / radius
        far = u * u + v * v
        gleam = _smooth(1 - 6 * ((u - 0.42 * lx) ** 2 + (v - 0.42 * ly) ** 2))
        return (0.98 - 0.26 * far * far + 0.2 * (u * lx + v * ly))[..., None] * base + 60 * gleam[..., None]

    canvas.paint(shape, colour, centre=spot, reach=radius, label=label, lift=3.0)


def box(canvas: Canvas, rng: np.random.Generator, *, half: float, cross: bool, label: int) -> bool:
    """A framed wooden box of side 2 * `half`, braced with an X where `cross`, else with a +. False if there was no room."""
    turn, base = between(rng, -0.12, 0.12), jittered(rng, BOX_COLOURS[int(rng.integers(len(BOX_COLOURS)))])
    spot = canvas.free_spot(rng, 1.3 * half)
    if spot is None:
        return False
    cos, sin = (1 - turn * turn) / (1 + turn * turn), 2 * turn / (1 + turn * turn)
    (cx, cy), (lx, ly) = spot, canvas.light

    def local(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return (x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin

    def shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = (np.abs(part) - half + 1.5 for part in local(x, y))
        return np.sqrt(np.maximum(u, 0) ** 2 + np.maximum(v, 0) ** 2) + np.minimum(np.maximum(u, v), 0) - 1.5

    def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        u, v = (part / half for part in local(x, y))
        a, b = np.abs(u), np.abs(v)
        brace = 0.707107 * np.abs(a - b) if cross else np.minimum(a, b)
        below = np.minimum(brace - 0.14, 0.78 - np.maximum(a, b))  # above 0: the planks between brace and frame
        planks = 0.66 + 0.05 * (np.floor(v * 2.5) % 2)
        tone = np.where(below < 0, 1.08, np.where(below < 0.09, 0.46, planks)) + 0.1 * (u * lx + v * ly)
        return tone[..., None] * base

    canvas.paint(shape, colour, centre=spot, reach=1.42 * half, label=label, lift=4.0)
    return True


def star(canvas: Canvas, rng: np.random.Generator, *, radius: float, label: int) -> None:
    """A golden five-pointed star with bevelled arms; nothing where there is no room."""
    (cos, sin), base = direction(rng), jittered(rng, (250, 186, 38))
    spot = canvas.free_spot(rng, radius)
    if spot is None:
        return
    (cx, cy), (lx, ly) = spot, canvas.light
    # The notch after tip k lies opposite tip k + 3.
    ring = [p for k in range(5) for p in (STAR_TIPS[k], tuple(-0.45 * c for c in STAR_TIPS[(k + 3) % 5]))]
    corners = [(cx + radius * (x * cos - y * sin), cy + radius * (x * sin + y * cos)) for x, y in ring]

    def shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _polygon_distance(x, y, corners)

    def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        depth = np.clip(-shape(x, y) / (0.3 * radius), 0, 1)
        side = ((x - cx) * lx + (y - cy) * ly) / radius
        return (0.78 + 0.24 * depth + 0.2 * side)[..., None] * base

    canvas.paint(shape, colour, centre=spot, reach=radius, label=label, lift=2.5)


def pole(canvas: Canvas, rng: np.random.Generator, *, label: int) -> None:
    """A striped rod, 1.3 to 3 pixels thick and up to two thirds of the picture long, lying over whatever is there."""
    length, thick = between(rng, 0.3, 0.85) * min(canvas.height, canvas.width), between(rng, 1.3, 3.0)
    ux, uy = direction(rng)
    cx, cy = between(rng, 0.0, canvas.width), between(rng, 0.0, canvas.height)
    pair = POLE_COLOURS[int(rng.integers(len(POLE_COLOURS)))]
    first, second = jittered(rng, pair[0]), jittered(rng, pair[1])

    def shape(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        along = np.clip((x - cx) * ux + (y - cy) * uy, -length / 2, length / 2)
        return np.sqrt((x - cx - along * ux) ** 2 + (y - cy - along * uy) ** 2) - thick / 2

    def colour(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        stripe = np.floor(((x - cx) * ux + (y - cy) * uy) / 9) % 2 < 1
        return np.where(stripe[..., None], first, second)

    canvas.paint(shape, colour, centre=(cx, cy), reach=length / 2 + thick, label=label, lift=1.5)


def ground(rng: np.random.Generator, texture: str, *, height: int, width: int) -> np.ndarray:
    """float64 (H, W, 3): `grass`, `sand` or `brick`."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    coarse, fine = _noise(rng, height, width, cell=28), _noise(rng, height, width, cell=6)
    grain = rng.random((height + 5, width))
    ux, uy = direction(rng)
    if texture == "grass":
        blades = grain[:height] + grain[1 : height + 1] + grain[2 : height + 2] + grain[3 : height + 3] - 2
        light = 0.86 + 0.3 * coarse + 0.16 * (fine - 0.5) + 0.24 * blades
        dry = _smooth(2.4 * coarse - 1.1)[..., None] * np.array([26.0, 6.0, -6.0])
        return light[..., None] * np.array([88.0, 124.0, 58.0]) + dry
    if texture == "sand":
        phase = (x * ux + y * uy) / 11 + 2.2 * coarse + 0.5 * fine
        phase = phase - np.floor(phase)
        light = 0.93 + 0.1 * coarse + 0.22 * (phase * (1 - phase) * 4 - 0.5) * 0.5 + 0.1 * (grain[:height] - 0.5)
        return light[..., None] * np.array([219.0, 190.0, 141.0])
    assert texture == "brick", texture
    turn = 0.08 * ux
    u, v = x - turn * y + 40 * uy * uy, y + turn * x + 3000
    row = np.floor(v / 9)
    u = u + 10 * (row % 2) + 3000
    column = np.floor(u / 20)
    tone = rng.random((32, 32, 2))[row.astype(int) % 32, column.astype(int) % 32]
    edge_u, edge_v = u - column * 20, v - row * 9
    seam = _smooth(np.minimum(np.minimum(edge_u, 20 - edge_u), np.minimum(edge_v, 9 - edge_v)) / 1.3 - 0.25)[..., None]
    face = (0.84 + 0.26 * tone[..., 0] + 0.12 * (fine - 0.5) + 0.1 * (grain[:height] - 0.5) - 0.02 * (edge_v - 4.5))[..., None]
    bricks = face * (np.array([170.0, 96.0, 78.0]) + tone[..., 1:] * np.array([-14.0, 16.0, 18.0]))
    mortar = np.array([142.0, 130.0, 118.0]) * (0.85 + 0.25 * fine)[..., None]
    return bricks * seam + mortar * (1 - seam)


def between(rng: np.random.Generator, low: float, high: float) -> float:
    """A uniform draw from [low, high)."""
    return low + (high - low) * float(rng.random())


def direction(rng: np.random.Generator) -> Spot:
    """A unit vector from the rational points of the circle: nearly uniform, and without sine or cosine."""
    t, quarter = between(rng, -0.414214, 0.414214), int(rng.integers(4))
    x, y = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    return ((x, y), (-y, x), (-x, -y), (y, -x))[quarter]


def jittered(rng: np.random.Generator, colour: Sequence[int]) -> np.ndarray:
    """float64 (3,): `colour` a little lighter or darker and shifted in hue."""
    return np.asarray(colour, np.float64) * between(rng, 0.9, 1.08) + rng.integers(-10, 11, 3)


def _smooth(t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _noise(rng: np.random.Generator, height: int, width: int, *, cell: int) -> np.ndarray:
    """Value noise in 0..1: a random lattice of spacing `cell`, smoothly interpolated."""
    lattice = rng.random((height // cell + 3, width // cell + 3))
    y, x = np.arange(height) / cell + float(rng.random()), np.arange(width) / cell + float(rng.random())
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    down, right = _smooth(y - top)[:, None], _smooth(x - left)[None]
    upper = lattice[top][:, left] * (1 - right) + lattice[top][:, left + 1] * right
    lower = lattice[top + 1][:, left] * (1 - right) + lattice[top + 1][:, left + 1] * right
    return upper * (1 - down) + lower * down


def _polygon_distance(x: np.ndarray, y: np.ndarray, corners: Sequence[Spot]) -> np.ndarray:
    """Signed distance to a closed polygon: the nearest edge, negative where an even-odd ray count says inside."""
    nearest, inside = np.full(x.shape, np.inf), np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(corners, [*corners[1:], corners[0]], strict=True):
        ex, ey = bx - ax, by - ay
        t = np.clip(((x - ax) * ex + (y - ay) * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (x - ax - t * ex) ** 2 + (y - ay - t * ey) ** 2)
        if ey:
            inside ^= ((y < ay) != (y < by)) & (x < ax + (y - ay) * ex / ey)
    return np.where(inside, -1.0, 1.0) * np.sqrt(nearest)
