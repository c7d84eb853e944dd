"""Damages to images and masks of every file type, drawn from a seed, each with the kinds of finding that tell it.

Every damage changes what is decoded or whether it may be decoded at all. What changes only the values of an image (a flipped bit
inside a JPEG) cannot be told from a photo, and what no reader looks at (the resolution, a comment) is no damage: neither is here.
"""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from segpipe.layout import Item

SIZE = (40, 52)
IMAGE_TYPES = ("png", "jpg", "tif", "gif", "grey.png", "palette.png")
MASK_TYPES = ("png", "palette.png", "tif", "gif")
GARBAGE = (
    b"<!DOCTYPE html><html><head><title>404 Not Found</title></head><body>nginx</body></html>\n",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d7a2146" * 8 + b"\nsize 12345\n",
    b'{"error": "quota exceeded"}',
    b"\x00" * 3000,
    b"PK\x03\x04" + b"\x14\x00" * 200,
)


@dataclass
class Sample:
    """The two files of one sample, and the random numbers of its damage."""

    image: Path
    mask: Path
    rng: np.random.Generator

    def item(self) -> Item:
        name = self.image.name
        return Item(
            id=self.image.stem, split="train", image=self.image, mask=self.mask, group="g", source=f"images/{name}", extra={}
        )


def encode(array: np.ndarray, kind: str) -> bytes:
    """The bytes of a picture of the type that `kind` ends in; grey or palette where it says so, or where the array is 2D."""
    picture = Image.fromarray(array)
    if kind == "grey.png":
        picture = picture.convert("L")
    if kind in ("palette.png", "gif") and array.ndim == 3:
        picture = picture.quantize(64)
    if kind in ("palette.png", "gif") and array.ndim == 2:
        picture.putpalette([value for i in range(256) for value in (i, 255 - i, i * 7 % 256)])
    file = io.BytesIO()
    # Pillow would number the colours of a GIF anew.
    options = {"gif": {"optimize": False}, "tif": {"compression": "tiff_deflate"} if array.shape[0] % 3 else {}}.get(kind, {})
    picture.save(file, {"png": "PNG", "jpg": "JPEG", "tif": "TIFF", "gif": "GIF"}[kind.rpartition(".")[2]], **options)
    return file.getvalue()


def draw(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A noisy RGB picture, and a mask of three classes 0, 1, 2 and of ignored pixels, 255."""
    y, x = np.mgrid[: size[0], : size[1]]
    mask = np.zeros(size, np.uint8)
    mask[(y - size[0] / 2) ** 2 + (x - size[1] / 3) ** 2 < 80] = 1
    mask[np.abs(x + y - 50) < 3] = 2
    mask[:2] = 255
    image = np.stack([40 + 60 * mask % 251, y * 5 % 256, x * 4 % 256], -1).astype(np.int64)
    return np.clip(image + rng.integers(-20, 20, image.shape), 0, 255).astype(np.uint8), mask


def make(where: Path, seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    image, mask = draw(rng)
    kinds = IMAGE_TYPES[rng.integers(len(IMAGE_TYPES))], MASK_TYPES[rng.integers(len(MASK_TYPES))]
    paths = []
    for array, kind, name in ((image, kinds[0], "images"), (mask, kinds[1], "masks")):
        path = where / name / f"{seed:03d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode(array, kind))
        paths.append(path)
    return Sample(paths[0], paths[1], rng)


def either(sample: Sample) -> Path:
    return sample.image if sample.rng.random() < 0.5 else sample.mask


def chunks(data: bytes) -> list[tuple[bytes, int, int]]:
    """(type, start, end of the data) of each chunk of a PNG."""
    found, at = [], 8
    while at < len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        found.append((data[at + 4 : at + 8], at + 8, at + 8 + length))
        at += 12 + length
    return found


def truncate(sample: Sample) -> Path:
    """Cut off before nine tenths: what is missing then is pixels, not a closing mark."""
    path = either(sample)
    data = path.read_bytes()
    path.write_bytes(data[: int(sample.rng.integers(1, int(len(data) * 0.9)))])
    return path


def empty(sample: Sample) -> Path:
    path = either(sample)
    path.write_bytes(b"")
    return path


def replace_by_text(sample: Sample) -> Path:
    path = either(sample)
    path.write_bytes(GARBAGE[sample.rng.integers(len(GARBAGE))])
    return path


def zero_a_block(sample: Sample) -> Path:
    """Zeros over the start of the file, as after a power cut; in a PNG, over any part of its pixel data."""
    path = either(sample)
    data = bytearray(path.read_bytes())
    start, stop = 0, int(sample.rng.integers(4, 200))
    if path.suffix == ".png" and sample.rng.random() < 0.7:
        _, low, high = next(chunk for chunk in chunks(bytes(data)) if chunk[0] == b"IDAT")
        start = int(sample.rng.integers(low, high - 12))
        stop = min(high, start + 64)
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)
    return path


def zero_the_end(sample: Sample) -> Path:
    """Zeros over the end of a PNG's pixel data, its inner checksum with it: the pixels in front of it are all there."""
    path = sample.mask = sample.mask.with_suffix(".png")
    path.write_bytes(encode(draw(sample.rng)[1], "png"))
    data = bytearray(path.read_bytes())
    _, _, end = next(chunk for chunk in chunks(bytes(data)) if chunk[0] == b"IDAT")
    start = end - int(sample.rng.integers(5, 20))
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    return path


def flip_in_the_header(sample: Sample) -> Path:
    """One bit of the mark at the start, or of width or height where the type has them at a known place."""
    path = either(sample)
    data = bytearray(path.read_bytes())
    places = {".png": (*range(8), *range(16, 24)), ".jpg": (0, 1), ".tif": range(4), ".gif": range(10)}[path.suffix]
    data[sample.rng.choice(places)] ^= 1 << int(sample.rng.integers(8))
    path.write_bytes(data)
    return path


def flip_jpeg_size(sample: Sample) -> Path:
    """A JPEG that says another height or width in its frame header."""
    sample.image = sample.image.with_suffix(".jpg")
    data = bytearray(encode(draw(sample.rng)[0], "jpg"))
    frame = data.index(b"\xff\xc0")
    data[frame + 6 + 2 * int(sample.rng.integers(2))] ^= 1 << int(sample.rng.integers(5))
    sample.image.write_bytes(data)
    return sample.image


def wrong_checksum(sample: Sample) -> Path:
    """A PNG whose pixel data is whole, but whose checksum is another."""
    path = sample.mask.with_suffix(".png")
    path.write_bytes(encode(draw(sample.rng)[1], "png"))
    sample.mask = path
    if sample.rng.random() < 0.5:
        path = sample.image = sample.image.with_suffix(".png")
        path.write_bytes(encode(draw(sample.rng)[0], "png"))
    data = bytearray(path.read_bytes())
    _, _, end = next(chunk for chunk in chunks(bytes(data)) if chunk[0] == b"IDAT")
    data[end + int(sample.rng.integers(4))] ^= 1 << int(sample.rng.integers(8))
    path.write_bytes(data)
    return path


def flip_in_png_pixels(sample: Sample) -> Path:
    """Flipped bits inside the compressed pixels of a PNG, whose checksums no longer fit."""
    path = sample.mask = sample.mask.with_suffix(".png")
    path.write_bytes(encode(draw(sample.rng)[1], "png"))
    data = bytearray(path.read_bytes())
    _, low, high = next(chunk for chunk in chunks(bytes(data)) if chunk[0] == b"IDAT")
    data[int(sample.rng.integers(low, high))] ^= 1 << int(sample.rng.integers(8))
    path.write_bytes(data)
    return path


def other_labels(sample: Sample) -> Path:
    """A mask of known values whose PNG was stored uncompressed and hit by one flip: only the checksums can tell."""
    path = sample.mask = sample.mask.with_suffix(".png")
    mask = draw(sample.rng)[1]
    rows = b"".join(b"\0" + row.tobytes() for row in mask)
    stream = bytearray(zlib.compress(rows, 0))
    at = 7 + int(sample.rng.choice(np.flatnonzero(np.frombuffer(rows, np.uint8) == 2)))
    assert stream[at] == 2
    stream[at] = 1
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], 8, 0, 0, 0, 0)
    parts = [(b"IHDR", header, header), (b"IDAT", bytes(stream), zlib.compress(rows, 0)), (b"IEND", b"", b"")]
    written = [struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + summed)) for t, d, summed in parts]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))
    return path


def image_of_another_size(sample: Sample) -> Path:
    size = (SIZE[0] + int(sample.rng.integers(-3, 3) or 1), SIZE[1])
    sample.image.write_bytes(encode(draw(sample.rng, size)[0], sample.image.name.partition(".")[2]))
    return sample.image


def mask_of_another_size(sample: Sample) -> Path:
    size = [(SIZE[1], SIZE[0]), (SIZE[0] // 2, SIZE[1] // 2), (SIZE[0], SIZE[1] - 1), (1, 1)][sample.rng.integers(4)]
    sample.mask.write_bytes(encode(draw(sample.rng, size)[1], sample.mask.name.partition(".")[2]))
    return sample.mask


def unknown_value(sample: Sample) -> Path:
    mask = draw(sample.rng)[1]
    spots = sample.rng.integers(0, SIZE[0], 3), sample.rng.integers(0, SIZE[1], 3)
    mask[spots] = sample.rng.integers(3, 255)
    sample.mask.write_bytes(encode(mask, sample.mask.name.partition(".")[2]))
    return sample.mask


def unknown_16_bit_value(sample: Sample) -> Path:
    mask = draw(sample.rng)[1].astype(np.uint16) * 257
    sample.mask = sample.mask.with_suffix(".png")
    Image.fromarray(mask).save(sample.mask)
    return sample.mask


def mask_as_jpeg(sample: Sample) -> Path:
    """A JPEG, under its own name or called .png."""
    mask = draw(sample.rng)[1]
    sample.mask = sample.mask.with_suffix(".jpg" if sample.rng.random() < 0.5 else ".png")
    sample.mask.write_bytes(encode(mask * 60, "jpg"))
    return sample.mask


def mask_was_a_jpeg(sample: Sample) -> Path:
    """A PNG of what a JPEG left of a mask."""
    smeared = np.asarray(Image.open(io.BytesIO(encode(draw(sample.rng)[1] * 60, "jpg"))))
    sample.mask = sample.mask.with_suffix(".png")
    sample.mask.write_bytes(encode(smeared, "png"))
    return sample.mask


def colour_mask(sample: Sample) -> Path:
    colours = sample.rng.integers(0, 256, (256, 3 + sample.rng.integers(2))).astype(np.uint8)
    sample.mask = sample.mask.with_suffix(".png" if sample.rng.random() < 0.5 else ".tif")
    Image.fromarray(colours[draw(sample.rng)[1]]).save(sample.mask)
    return sample.mask


def float_mask(sample: Sample) -> Path:
    values = draw(sample.rng)[1].astype(np.float32) + np.float32(sample.rng.random() / 2 + 0.1)
    if sample.rng.random() < 0.3:
        values[sample.rng.integers(SIZE[0])] = np.nan
    sample.mask = sample.mask.with_suffix(".tif")
    Image.fromarray(values).save(sample.mask)
    return sample.mask


def swapped(sample: Sample) -> Path:
    """The image stands where the mask should be."""
    sample.mask = sample.mask.with_suffix(".png")
    sample.mask.write_bytes(encode(draw(sample.rng)[0], "png"))
    return sample.mask


FILE = {"unreadable", "size_mismatch"}
"""What is said of a damaged file: a damaged header may only change the size."""
DAMAGES: dict[Callable[[Sample], Path], set[str]] = {
    truncate: FILE,
    empty: FILE,
    replace_by_text: FILE,
    zero_a_block: FILE,
    zero_the_end: FILE,
    flip_in_the_header: FILE,
    flip_jpeg_size: FILE,
    wrong_checksum: FILE,
    flip_in_png_pixels: FILE | {"unknown_label", "smeared_mask"},
    other_labels: FILE,
    image_of_another_size: {"size_mismatch"},
    mask_of_another_size: {"size_mismatch"},
    unknown_value: {"unknown_label"},
    unknown_16_bit_value: {"unknown_label"},
    mask_as_jpeg: {"jpeg_mask"},
    mask_was_a_jpeg: {"smeared_mask"},
    colour_mask: {"colour_mask", "unreadable"},
    float_mask: {"not_labels", "unreadable"},
    swapped: {"colour_mask", "unreadable"},
}
"""Each damage, and the kinds of finding that tell it."""
