"""Which arrays a MATLAB 5 file holds, by name and shape, for a reader who was not told where the labels are."""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from segpipe.datasets.blocks.matlab import (
    ARRAYS,
    COMPRESSED,
    HEADER,
    MATRIX,
    MAX_UNPACKED,
    ORDERS,
    STRUCTURE,
    elements_of,
    parts_of,
)

DEEPEST = 8
"""Structures inside structures."""


def matrices(path: Path) -> dict[tuple[str, ...], tuple[int, int]]:
    """{(variable, field, ...): (rows, columns)} of every matrix of numbers; those in cells and arrays of structures are left out.

    Raises:
        ValueError: the file is damaged or no MATLAB 5 file. The message names no file.
    """
    data = memoryview(path.read_bytes())
    order = ORDERS.get(bytes(data[HEADER - 4 : HEADER]))
    if order is None:
        raise ValueError("no MATLAB 5 file; one of version 7.3 must be saved again with -v7")
    found: dict[tuple[str, ...], tuple[int, int]] = {}
    try:
        for kind, body in elements_of(data[HEADER:], order):
            if kind == COMPRESSED:
                unpacked = zlib.decompressobj().decompress(body, MAX_UNPACKED)
                kind, body = next(elements_of(memoryview(unpacked), order), (0, body))
            if kind == MATRIX:
                found |= dict(_inside(body, order, (bytes(parts_of(body, order)[2]).decode("latin-1"),)))
    except (struct.error, zlib.error, IndexError) as error:
        raise ValueError(f"damaged MATLAB file ({error})") from error
    return found


def _inside(body: memoryview, order: str, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], tuple[int, int]]]:
    if not len(body):  # an empty field
        return
    parts = parts_of(body, order)
    kind = struct.unpack_from(f"{order}I", parts[0])[0] & 0xFF
    shape = [int(n) for n in np.frombuffer(parts[1], f"{order}i4")]
    if kind in ARRAYS and len(shape) == 2 and math.prod(shape) > 1:
        yield names, (shape[0], shape[1])
    if kind == STRUCTURE and math.prod(shape) == 1 and len(names) < DEEPEST:
        length = struct.unpack_from(f"{order}i", parts[3])[0]
        words = bytes(parts[4])
        for number, start in enumerate(range(0, len(words), length) if length > 0 else ()):
            field = words[start : start + length].split(b"\0")[0].decode("latin-1")
            yield from _inside(parts[5 + number], order, (*names, field))
