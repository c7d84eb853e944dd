"""Label arrays in MATLAB 5 files (what `save` writes with -v6 and -v7), the form of SBD's and PASCAL-Context's masks.

SciPy's reader (1.17) takes the whole process down on some damaged files; this one raises ValueError. It finds one array by the name
of its variable and of the fields inside, and skips all else. Format: MathWorks, "MAT-File Format", level 5.
"""

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

HEADER = 128
ORDERS = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}
"""The last four bytes of the header, version and byte order."""
MATRIX, COMPRESSED = 14, 15
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""How values are stored, by an element's type."""
ARRAYS = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
"""What values are, by an array's class; they may be stored in a smaller type."""
STRUCTURE = 2
MAX_UNPACKED = 2**28
"""Bytes of one variable: 32 million doubles fit, a decompression bomb does not."""


def labels(path: Path, *names: str) -> np.ndarray:
    """The array of whole numbers at `names`, (H, W) or as the file has it: a variable, then fields of structures.

    Doubles that hold whole numbers become int32; whole numbers keep their type.

    Raises:
        ValueError: the file is damaged or no MATLAB 5 file, or holds no array of whole numbers there. The message names no file.
    """
    data = memoryview(path.read_bytes())
    order = ORDERS.get(bytes(data[HEADER - 4 : HEADER]))
    if order is None:
        raise ValueError("no MATLAB 5 file; one of version 7.3 must be saved again with -v7")
    try:
        array = _variable(data[HEADER:], order, names)
    except (struct.error, zlib.error, IndexError) as error:
        raise ValueError(f"damaged MATLAB file ({error})") from error
    if array.dtype.kind == "f":
        whole = np.isfinite(array) & (np.abs(array) < 2**31)
        rounded = np.where(whole, array, 0).astype(np.int32)
        if not (whole & (rounded == array)).all():
            raise ValueError(f"{'.'.join(names)} holds values that are no whole numbers")
        return rounded
    return array


def _variable(data: memoryview, order: str, names: tuple[str, ...]) -> np.ndarray:
    there = []
    for kind, body in elements_of(data, order):
        if kind == COMPRESSED:
            unpacked = zlib.decompressobj().decompress(body, MAX_UNPACKED)
            kind, body = next(elements_of(memoryview(unpacked), order), (0, body))
        if kind != MATRIX:
            continue
        name = bytes(parts_of(body, order)[2]).decode("latin-1")
        if name == names[0]:
            return _array(body, order, names)
        there.append(name)
    raise ValueError(f"no variable {names[0]!r}; there are: {', '.join(there) or 'none'}")


def _array(body: memoryview, order: str, names: tuple[str, ...]) -> np.ndarray:
    """The array in the field `names[1:]` of the matrix `body`, whose own name is `names[0]`."""
    parts = parts_of(body, order)
    flags = struct.unpack_from(f"{order}I", parts[0])[0]
    if len(names) > 1:
        if flags & 0xFF != STRUCTURE:
            raise ValueError(f"{names[0]!r} is no structure, so it has no field {names[1]!r}")
        length = struct.unpack_from(f"{order}i", parts[3])[0]
        words = bytes(parts[4])
        if length < 1:
            raise ValueError("damaged MATLAB file (field names without letters)")
        fields = [words[i : i + length].split(b"\0")[0].decode("latin-1") for i in range(0, len(words), length)]
        if names[1] not in fields:
            raise ValueError(f"{names[0]!r} has no field {names[1]!r}; it has: {', '.join(fields)}")
        return _array(parts[5 + fields.index(names[1])], order, names[1:])
    if flags & 0xFF not in ARRAYS or flags & 0x800:  # 0x800: complex
        raise ValueError(f"{names[0]!r} is no array of real numbers")
    shape = [int(n) for n in np.frombuffer(parts[1], f"{order}i4")]
    kind, stored = list(elements_of(body, order))[3]
    stored_as_float = NUMBERS.get(kind, "f")[0] == "f"
    if kind not in NUMBERS or (stored_as_float and ARRAYS[flags & 0xFF][0] != "f"):
        raise ValueError(f"damaged MATLAB file (numbers of type {kind})")
    values = np.frombuffer(stored, f"{order}{NUMBERS[kind]}")
    if min(shape, default=-1) < 0 or math.prod(shape) != len(values):
        raise ValueError(f"damaged MATLAB file ({len(values)} values for an array of {shape})")
    return values.astype(ARRAYS[flags & 0xFF]).reshape(shape, order="F")


def parts_of(body: memoryview, order: str) -> list[memoryview]:
    """The contents of the elements of a matrix: flags, shape, name, values, ..."""
    return [part for _, part in elements_of(body, order)]


def elements_of(data: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """(type, content) of the elements that follow each other in `data`."""
    at = 0
    while at < len(data):
        kind, size = struct.unpack_from(f"{order}II", data, at)
        start = at + 8
        if kind >> 16:  # a small element: size and type share a word, at most 4 bytes follow
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
            if size > 4:
                raise ValueError(f"damaged MATLAB file (a small element of {size} bytes)")
        if start + size > len(data):
            raise ValueError(f"damaged MATLAB file (an element of {size} bytes in the last {len(data) - start})")
        yield kind, data[start : start + size]
        at = start + size
        at += 0 if kind == COMPRESSED else -at % 8
