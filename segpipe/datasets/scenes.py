"""The embedded dataset: garden scenes seen from above, drawn from a seed, in which every lesson of segmentation is planted.

Layout of the raw folder (any folder in this layout may be given as `source` instead of drawing one):

    classes.json                    [{"name", "colour": [r, g, b], "thing"}, ...] in the order of the label values
    <split>/images/<id>.png         RGB
    <split>/masks/<id>.png          class index per pixel; 255 = ignore
    <split>/instances/<id>.png      16-bit instance number per pixel, 0 = none (optional)
    <split>/scenes.json             {id: {"texture", "objects": [{"instance", "class"}, ...]}} (the planted truth; nothing reads it)

The lessons, by class:

- `ground`: about 89 % of all pixels, in three textures (`grass`, `sand`, `brick`), one per image: pixel accuracy lies.
- `disc`: round tokens in clusters that touch: their regions merge.
- `pole`: rods 1 to 3 pixels thick: nothing but boundary.
- `star`: about 0.4 % of the pixels, in about half of the images: the rare class.
- `crate` and `chest`: look-alikes. Equal size, colours and frame; a crate is braced with an X, a chest with a +.

The planted bias: in `train` and `val` a box on `grass` is a crate with probability 0.95, and one on `brick` a chest with 0.95
(`sand` carries neither), so the texture predicts the class better than the brace does. In `test` both are equally likely on
both textures: a model that learned the ground instead of the brace calls chests on grass crates, and crates on brick chests.
`bias: false` draws all splits like `test`; the two versions of an image differ in the braces alone.

Every image is drawn from its own generator, (seed, split, index), so changing a count changes no other image. Images share
nothing with one another, so each is its own group: a bootstrap over images is the right one here.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segpipe.datasets.blocks import garden
from segpipe.layout import Item, Raw, Scan, Source
from segpipe.shards import SPLITS, ClassInfo, encode_image, encode_mask

SOURCES: tuple[Source, ...] = ()
CLASSES = (
    ClassInfo(name="ground", colour=(86, 96, 110)),
    ClassInfo(name="disc", colour=(0, 130, 200), thing=True),
    ClassInfo(name="pole", colour=(245, 226, 60), thing=True),
    ClassInfo(name="star", colour=(224, 84, 20), thing=True),
    ClassInfo(name="crate", colour=(0, 168, 120), thing=True),
    ClassInfo(name="chest", colour=(214, 110, 178), thing=True),
)
GROUND, DISC, POLE, STAR, CRATE, CHEST = range(6)
IMAGES = {"train": 240, "val": 40, "test": 80}
TEXTURES = ("grass", "grass", "grass", "sand", "sand", "brick", "brick", "brick")
"""One is drawn per image, each entry equally likely."""
BIAS = 0.95
"""Probability, in the biased splits, that a box on grass is a crate, and that one on brick is a chest."""


def generate(
    raw: Path,
    *,
    seed: int,
    size: Sequence[int] = (128, 160),
    images: Mapping[str, int] = IMAGES,
    bias: bool = True,
) -> None:
    """Draw the dataset into the folder `raw`, in the layout above.

    `size` is (height, width) in pixels; objects keep their size. `images` is the number of images of each split that is not
    to keep its default. `bias` plants the bias in train and val.

    Raises:
        ValueError: a split is unknown or empty, or the images are too small to hold the objects.
    """
    counts = IMAGES | dict(images)
    if set(counts) != set(SPLITS) or min(counts.values()) < 1:
        raise ValueError(f"images: {dict(images)}; takes a count of 1 or more for any of {', '.join(SPLITS)}, nothing else")
    height, width = (int(side) for side in size)
    if min(height, width) < 64:
        raise ValueError(f"size: [{height}, {width}]; the objects need at least [64, 64]")
    raw.mkdir(parents=True, exist_ok=True)
    table = [{"name": c.name, "colour": list(c.colour), "thing": c.thing} for c in CLASSES]
    (raw / "classes.json").write_text(json.dumps(table, indent=1) + "\n")
    for number, split in enumerate(SPLITS):
        for kind in ("images", "masks", "instances"):
            (raw / split / kind).mkdir(parents=True)
        truth = {}
        for index in range(counts[split]):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, number, index])))
            canvas, texture = draw(rng, height=height, width=width, odds=BIAS if bias and split != "test" else 0.5)
            name = f"{split}-{index:04d}"
            (raw / split / "images" / f"{name}.png").write_bytes(encode_image(canvas.finish(rng)))
            (raw / split / "masks" / f"{name}.png").write_bytes(encode_mask(canvas.mask))
            (raw / split / "instances" / f"{name}.png").write_bytes(encode_mask(canvas.instances))
            objects = [{"instance": i + 1, "class": CLASSES[c].name} for i, c in enumerate(canvas.objects)]
            truth[name] = {"texture": texture, "objects": objects}
        (raw / split / "scenes.json").write_text(json.dumps(truth, indent=1) + "\n")


def draw(rng: np.random.Generator, *, height: int, width: int, odds: float) -> tuple[garden.Canvas, str]:
    """One scene and its texture; `odds` is the probability that a box is the one its texture stands for."""
    texture = TEXTURES[int(rng.integers(len(TEXTURES)))]
    light = garden.direction(rng)
    canvas = garden.Canvas(garden.ground(rng, texture, height=height, width=width), light=light)
    for _ in range(int(rng.integers(1, 5))):
        half, as_expected = garden.between(rng, 10.0, 14.0), float(rng.random()) < odds
        crate = (texture == "grass") == as_expected
        if texture != "sand":
            garden.box(canvas, rng, half=half, cross=crate, label=CRATE if crate else CHEST)
    if rng.random() < 0.5:
        for _ in range(int(rng.integers(1, 3))):
            garden.star(canvas, rng, radius=garden.between(rng, 8.0, 12.0), label=STAR)
    for _ in range(int(rng.integers(1, 3))):
        canvas.cluster(rng, count=int(rng.integers(2, 7)), label=DISC)
    for _ in range(int(rng.integers(1, 4))):
        garden.pole(canvas, rng, label=POLE)
    return canvas, texture


def scan(raw: Path) -> Scan:
    """List the samples of a raw folder in the layout above.

    Raises:
        ValueError: classes.json or a mask is missing.
    """
    table = raw / "classes.json"
    if not table.exists():
        raise ValueError(f"{table}: missing. It lists the classes as {{name, colour, thing}}, in the order of the labels.")
    rows = json.loads(table.read_text())
    classes = tuple(ClassInfo(name=r["name"], colour=tuple(r["colour"]), thing=r.get("thing", False)) for r in rows)
    items = []
    for split in SPLITS:
        for image in sorted((raw / split / "images").glob("*.png")):
            mask, instances = (raw / split / kind / image.name for kind in ("masks", "instances"))
            if not mask.exists():
                raise ValueError(f"{mask}: missing, but {image} is there. Add the mask or remove the image.")
            extra = {"instances": str(instances)} if instances.exists() else {}
            source = image.relative_to(raw).as_posix()
            item = Item(id=image.stem, split=split, image=image, mask=mask, group=image.stem, source=source, extra=extra)
            items.append(item)
    return Scan(classes=classes, items=tuple(items), labels={i: i for i in range(len(classes))} | {255: 255})


def load(item: Item) -> Raw:
    """Decode one sample. An instance has the class of its first pixel; the drawing gives every instance one class."""
    assert item.mask is not None
    labels = np.asarray(Image.open(item.mask))
    rows: list[dict[str, Any]] = []
    if "instances" in item.extra:
        numbers = np.asarray(Image.open(item.extra["instances"]))
        for number in np.unique(numbers[numbers > 0]):
            inside = numbers == number
            rows.append({"category": int(labels[inside][0]), "mask": inside, "iscrowd": False})
    return Raw(image=item.image.read_bytes(), labels=labels, instances=rows)
