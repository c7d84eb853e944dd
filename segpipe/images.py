"""Encoded images of any source become what the shards hold: 8-bit RGB, in the source's own bytes where they are that."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

from segpipe import shards

DAMAGE = (OSError, SyntaxError, ValueError, EOFError, TypeError, KeyError, struct.error, zlib.error, Image.DecompressionBombError)
"""All that Pillow, numpy and the volume readers raise for files that are cut off, empty or something else; the types and keys are
those of damaged TIFF tags."""
EXIF_ORIENTATION = 0x0112
PNG = b"\x89PNG\r\n\x1a\n"


def normal_image(encoded: bytes, *, mask_size: tuple[int, ...]) -> tuple[bytes, str | None]:
    """The image as 8-bit RGB in a JPEG or PNG: the source's own bytes where they are that, else a PNG and what was changed.

    Grey, palette, transparent (the alpha channel is dropped), CMYK and 16-bit images and other file types become RGB PNG; 16-bit
    values keep the 8 highest bits in use. A picture with an EXIF orientation is turned if it then fits the mask.

    Raises:
        OSError, SyntaxError, ValueError: the bytes are no complete image (what Pillow raises).
    """
    with Image.open(io.BytesIO(encoded)) as opened:
        opened.load()
        image: Image.Image = opened
        orientation = image.getexif().get(EXIF_ORIENTATION, 1)
        eight_bit_rgb = image.mode == "RGB" and (opened.format == "JPEG" or encoded[24:26] == b"\x08\x02")
        if opened.format in ("JPEG", "PNG") and eight_bit_rgb and orientation == 1:
            return encoded, None
        note = f"{opened.format} {image.mode}"
        if orientation != 1:
            note = f"orientation {orientation}"
            turned = ImageOps.exif_transpose(image)
            if (turned.height, turned.width) == tuple(mask_size):
                image = turned
        if image.mode.startswith("I") or image.mode == "F":
            image = Image.fromarray(_eight_bits(np.asarray(image), image.mode))
        return shards.encode_image(np.asarray(image.convert("RGB"))), note


def _eight_bits(values: np.ndarray, mode: str) -> np.ndarray:
    if mode == "F" or values.min() < 0 or values.max() > 65535:
        raise ValueError(f"values {values.min()}..{values.max()} of mode {mode} are no 8- or 16-bit grey levels")
    return (values.astype(np.int64) >> max(0, int(values.max()).bit_length() - 8)).astype(np.uint8)


def check_png(encoded: bytes) -> None:
    """Raise ValueError where the checksum of a part that decides the pixels is wrong; other files than PNG pass.

    Pillow looks at no checksum of the pixels' parts, so that a damaged mask would give other labels and no word of it.
    """
    at = len(PNG) if encoded.startswith(PNG) else len(encoded)
    while at + 12 <= len(encoded):
        end = at + 8 + int.from_bytes(encoded[at : at + 4])
        kind = encoded[at + 4 : at + 8]
        if kind[:1].isupper() and zlib.crc32(encoded[at + 4 : end]) != int.from_bytes(encoded[end : end + 4]):
            raise ValueError(f"the checksum of its {kind.decode('ascii', 'replace')} part is wrong")
        if kind == b"IEND":
            return
        at = end + 4


def in_words(error: BaseException) -> str:
    """The error in words, without the memory addresses that Pillow puts into some."""
    text = " ".join(str(part) for part in error.args) or type(error).__name__
    if isinstance(error, TypeError | KeyError):
        text = f"{type(error).__name__}: {text}"
    return "no image file" if "cannot identify image file" in text else text
