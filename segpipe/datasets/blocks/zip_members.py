"""Files inside a zip archive that is left packed: listed once, then each read by its place, without opening the archive again."""

import struct
import zipfile
import zlib
from pathlib import Path, PurePosixPath

HEADER = 30
"""Bytes of a local file header before the name."""
Place = tuple[int, int, int, int, int]


def places(path: Path, suffix: str) -> dict[str, Place]:
    """{file name without folders: its place} of the members of a zip archive that end with `suffix`.

    Raises:
        ValueError: the archive is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.endswith(suffix) and "__MACOSX" not in m.filename]
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path}: {error}. The archive is damaged or cut; fetch it again.") from error
    return {
        PurePosixPath(m.filename).name: (m.header_offset, m.compress_size, m.file_size, m.compress_type, m.CRC) for m in members
    }


def read(path: Path, place: Place) -> bytes:
    """The bytes of the member at `place`.

    Raises:
        ValueError, zlib.error: they are damaged, or packed in a way other than deflate.
    """
    first, packed, size, method, checksum = place
    with open(path, "rb") as file:
        file.seek(first)
        header = file.read(HEADER)
        if header[:4] != b"PK\x03\x04" or len(header) < HEADER:
            raise ValueError(f"{path}: no file at byte {first}; it changed since it was listed, or is cut")
        file.seek(sum(struct.unpack("<HH", header[26:30])), 1)
        data = file.read(packed)
    if method == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, size + 1)
    elif method != zipfile.ZIP_STORED:
        raise ValueError(f"{path}: the file at byte {first} is packed by method {method}; unpack the archive")
    if len(data) != size or zlib.crc32(data) != checksum:
        raise ValueError(f"{path}: the file at byte {first} is damaged; fetch the archive again")
    return data
