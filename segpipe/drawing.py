"""Pictures of labels for people: coloured masks, overlays and contact sheets. Used by convert, predict and the report pages."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segpipe.shards import ClassInfo

MANY = 40
"""With more classes than this a contact sheet's legend names only those on the sheet."""
PAPER, INK = (252, 252, 251), (27, 31, 36)


def colour_mask(mask: np.ndarray, palette: np.ndarray, *, ignore_index: int = 255) -> np.ndarray:
    """uint8 (H, W, 3): each label of `mask` uint8/uint16 (H, W) in its colour of `palette` uint8 (K, 3); ignored pixels black.

    Raises:
        ValueError: a label that is not ignored has no colour in the palette.
    """
    ignored = mask == ignore_index
    labels = np.where(ignored, 0, mask)
    if labels.size and int(labels.max()) >= len(palette):
        raise ValueError(f"label {int(labels.max())} has no colour: the palette holds {len(palette)}")
    colours = np.asarray(palette, np.uint8)[labels]
    colours[ignored] = 0
    return colours


def overlay(
    image: np.ndarray, mask: np.ndarray, palette: np.ndarray, *, alpha: float = 0.55, ignore_index: int = 255
) -> np.ndarray:
    """uint8 (H, W, 3): `image` uint8 (H, W, 3) tinted with the colours of `mask` (H, W); ignored pixels are darkened and hatched.

    `alpha` in 0..1 is the weight of the label's colour. Where two labels meet, the pixel shows the label's colour unmixed,
    so that thin objects stay visible.

    Raises:
        ValueError: image and mask differ in size, or a label has no colour.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the image is {image.shape[:2]} (height, width), its mask {mask.shape}")
    colours = colour_mask(mask, palette, ignore_index=ignore_index).astype(np.float32)
    weight = np.where(label_edges(mask), np.float32(max(alpha, 0.85)), np.float32(alpha))[..., None]
    mixed = image * (1 - weight) + colours * weight
    ignored = mask == ignore_index
    if ignored.any():
        y, x = np.indices(mask.shape)
        hatched = np.where((x + y) % 6 < 2, np.float32(0.75), np.float32(0.3))[..., None] * image
        mixed = np.where(ignored[..., None], hatched, mixed)
    return np.rint(mixed).astype(np.uint8)


def label_edges(mask: np.ndarray) -> np.ndarray:
    """bool (H, W): pixels whose right or lower neighbour has another label."""
    edges = np.zeros(mask.shape, bool)
    edges[:, :-1] |= mask[:, :-1] != mask[:, 1:]
    edges[:-1] |= mask[:-1] != mask[1:]
    return edges


def legend(classes: Sequence[ClassInfo], *, width: int, ignored: bool = False) -> np.ndarray:
    """uint8 (h, `width`, 3): one colour chip and name per class, wrapped to the width; `ignored` adds a chip for ignored pixels."""
    font = ImageFont.load_default(size=15)
    entries = [(c.name, c.colour) for c in classes] + ([("ignored", (0, 0, 0))] if ignored else [])
    x, y, places = 10, 10, []
    for name, colour in entries:
        length = int(font.getlength(name)) + 42
        if x + length > width and x > 10:
            x, y = 10, y + 24
        places.append((x, y, name, colour))
        x += length
    strip = Image.new("RGB", (width, y + 30), PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, name, colour in places:
        draw.rounded_rectangle((x, y + 1, x + 18, y + 15), radius=3, fill=tuple(colour), outline=(150, 156, 162))
        draw.text((x + 24, y + 8), name, fill=INK, font=font, anchor="lm")
    return np.asarray(strip)


def contact_sheet(
    rows: Sequence[tuple[str, np.ndarray, np.ndarray]],
    classes: Sequence[ClassInfo],
    *,
    title: str,
    ignore_index: int = 255,
    columns: int = 3,
    tile_width: int = 240,
) -> np.ndarray:
    """uint8 (h, w, 3): pairs of image and overlay with the id below each, under a title and the legend of the classes.

    `rows` holds (id, image uint8 (H, W, 3), mask (H, W)); each is scaled to `tile_width`, masks by nearest neighbour.
    """
    palette = np.array([c.colour for c in classes], np.uint8)
    cells = [_cell(*row, palette=palette, ignore_index=ignore_index, width=tile_width) for row in rows]
    gap, caption = 14, 24
    columns = max(1, min(columns, len(cells)))
    width = max(columns * (2 * tile_width + 4 + gap) + gap, 420)
    shown = np.unique(np.concatenate([np.unique(mask) for _, _, mask in rows])) if rows else np.empty(0, np.int64)
    some = [classes[int(i)] for i in shown if i < len(classes)] if len(classes) > MANY else classes
    key = legend(some, width=width - 2 * gap + 20, ignored=ignore_index in shown)
    lines = [cells[i : i + columns] for i in range(0, len(cells), columns)]
    top = 44 + key.shape[0]
    height = top + sum(max(c[1].shape[0] for c in line) + caption + 8 for line in lines) + 6
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((gap, 24), title, fill=INK, font=ImageFont.load_default(size=20), anchor="lm")
    sheet.paste(Image.fromarray(key), (gap - 10, 40))
    y, small = top, ImageFont.load_default(size=13)
    for line in lines:
        for i, (name, picture) in enumerate(line):
            x = gap + i * (2 * tile_width + 4 + gap)
            sheet.paste(Image.fromarray(picture), (x, y))
            draw.text((x, y + picture.shape[0] + 11), name, fill=(91, 101, 112), font=small, anchor="lm")
        y += max(c[1].shape[0] for c in line) + caption + 8
    return np.asarray(sheet)


def side_by_side(pictures: Sequence[np.ndarray]) -> bytes:
    """The JPEG bytes of pictures uint8 (H, W, 3) beside each other, aligned at the top, with paper between and below them."""
    height = max(picture.shape[0] for picture in pictures)
    padded = [cv2.copyMakeBorder(p, 0, height - p.shape[0], 0, 4, cv2.BORDER_CONSTANT, value=PAPER) for p in pictures]
    done, data = cv2.imencode(".jpg", cv2.cvtColor(np.hstack(padded), cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
    assert done
    return bytes(data.tobytes())


def _cell(
    name: str, image: np.ndarray, mask: np.ndarray, *, palette: np.ndarray, ignore_index: int, width: int
) -> tuple[str, np.ndarray]:
    size = (width, max(1, round(image.shape[0] * width / image.shape[1])))
    shrinks = size[0] < image.shape[1]
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    labels = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST_EXACT)
    tinted = overlay(picture, labels, palette, ignore_index=ignore_index)
    return name, np.hstack([picture, np.full((size[1], 4, 3), PAPER, np.uint8), tinted])
