"""The one dataset format: a folder of Arrow IPC files and one dataset.json. Written by convert and augment, read by all else.

Few big files instead of many small ones: DVC hashes and moves them fast, and loader workers share the memory map. Images and
masks stay encoded in the rows (JPEG, PNG; masks are PNG of class indices), so a shard is about as large as its source.
"""

import hashlib
import io
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
from PIL import Image

FORMAT_VERSION = 2
SPLITS = ("train", "val", "test")
MAX_SHARD_BYTES = 512 * 2**20
ROWS_PER_BATCH = 16
NPY = b"\x93NUMPY"
INSTANCE = pa.struct(
    [
        ("category", pa.int32()),
        ("rle", pa.string()),
        ("bbox", pa.list_(pa.float32(), 4)),
        ("area", pa.float32()),
        ("iscrowd", pa.bool_()),
    ]
)
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("image", pa.binary()),
        ("mask", pa.binary()),
        ("instances", pa.list_(INSTANCE)),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("depth", pa.int32()),
        ("group", pa.string()),
        ("parent", pa.string()),
        ("recipe", pa.string()),
        ("source", pa.string()),
        ("spacing", pa.list_(pa.float64())),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ClassInfo:
    """One class: its name, its colour for people (r, g, b in 0..255), and whether it comes in countable things."""

    name: str
    colour: tuple[int, int, int]
    thing: bool = False


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One row of a shard. `image` and `mask` are encoded bytes: a picture and a PNG of class indices, or two `.npy` for a volume.

    `spacing` is the distance of neighbouring pixels or voxels along each axis of the mask, in millimetres, where it is known.
    """

    id: str
    image: bytes
    mask: bytes
    height: int
    width: int
    group: str
    source: str
    depth: int = 1
    instances: list[dict[str, Any]] = field(default_factory=list)
    parent: str | None = None
    recipe: str | None = None
    spacing: list[float] | None = None


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """dataset.json: everything about a dataset that is not in its rows.

    `splits` holds the sample count of each split; `pixels` the pixel count of each class in each split (ignored pixels left
    out); `mean` and `std` are per channel in 0..1 over the train split; `provenance` holds addresses, checksums and licence;
    `statistics` is what `segpipe/statistics.py` counts: images per class, sizes, suggested class weights.
    """

    name: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    task: str
    dimensions: int
    splits: dict[str, int]
    pixels: dict[str, list[int]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    provenance: dict[str, Any]
    digest: str
    statistics: dict[str, Any] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def class_names(self) -> list[str]:
        return [c.name for c in self.classes]

    def palette(self) -> np.ndarray:
        """uint8 (256 or more, 3): the colour of each label; labels that are no class, the ignored one among them, are black."""
        table = np.zeros((max(256, len(self.classes)), 3), np.uint8)
        for index, c in enumerate(self.classes):
            table[index] = c.colour
        return table


class SplitWriter:
    """Writes the shards of one split: `<split>-00000.arrow`, `<split>-00001.arrow`, ..., each at most `max_bytes`."""

    def __init__(self, folder: Path, split: str, *, max_bytes: int = MAX_SHARD_BYTES) -> None:
        self._folder, self._split, self._max_bytes = folder, split, max_bytes
        self._rows: list[dict[str, Any]] = []
        self._writer: pa.RecordBatchFileWriter | None = None
        self._file_bytes = 0
        self._shards = 0
        self._digest = hashlib.sha256()
        self.count = 0

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, sample: Sample, *, image_digest: bytes | None = None) -> None:
        """Append one sample. The rows' order is the order of the calls. `image_digest` is the sha256 of its image, if known."""
        size = len(sample.image) + len(sample.mask)
        if self._file_bytes and self._file_bytes + size > self._max_bytes:
            self._close_shard()
        self._rows.append(asdict(sample))
        self._file_bytes += size
        self.count += 1
        self._digest.update(hashlib.sha256(sample.id.encode()).digest())
        self._digest.update(image_digest or hashlib.sha256(sample.image).digest())
        self._digest.update(hashlib.sha256(sample.mask).digest())
        if len(self._rows) >= ROWS_PER_BATCH:
            self._flush()

    def close(self) -> str:
        """Finish the split (an empty one still gets one empty shard) and return the sha256 of its ids, images and masks."""
        if self._writer is None and not self._shards:
            self._flush()
        self._close_shard()
        return self._digest.hexdigest()

    def _flush(self) -> None:
        if self._writer is None:
            path = self._folder / f"{self._split}-{self._shards:05d}.arrow"
            self._writer = pa.ipc.new_file(str(path), SCHEMA)
        if self._rows:
            self._writer.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=SCHEMA))
            self._rows = []

    def _close_shard(self) -> None:
        if self._rows:
            self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer, self._file_bytes = None, 0
            self._shards += 1


class Split:
    """The samples of one split, memory-mapped. Indexing returns a `Sample`; the object pickles as its path."""

    def __init__(self, folder: Path, split: str) -> None:
        self.folder, self.name = Path(folder), split
        paths = sorted(self.folder.glob(f"{split}-*.arrow"))
        if not paths:
            raise ValueError(f"{self.folder}: holds no {split}-*.arrow. Run `dvc repro` so that convert writes it.")
        self._batches: list[pa.RecordBatch] = []
        self._maps = [pa.memory_map(str(path)) for path in paths]
        for mapped in self._maps:
            reader = pa.ipc.open_file(mapped)
            self._batches += [reader.get_batch(i) for i in range(reader.num_record_batches)]
        self._starts = np.cumsum([0] + [batch.num_rows for batch in self._batches])

    def __reduce__(self) -> tuple[Any, ...]:
        return Split, (self.folder, self.name)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Sample:
        batch, row = self._locate(index)
        return Sample(**{name: batch.column(i)[row].as_py() for i, name in enumerate(SCHEMA.names)})

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(len(self)))

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """The decoded pair of one row: image uint8 (H, W, 3) RGB and mask uint8/uint16 (H, W); both (D, H, W) for a volume."""
        batch, row = self._locate(index)
        image = np.frombuffer(batch.column(1)[row].as_buffer(), np.uint8)
        mask = np.frombuffer(batch.column(2)[row].as_buffer(), np.uint8)
        return decode_image(image), decode_mask(mask)

    def column(self, name: str) -> list[Any]:
        """All values of one column, such as `id` or `group`, in row order."""
        return [value for batch in self._batches for value in batch.column(SCHEMA.names.index(name)).to_pylist()]

    @property
    def ids(self) -> list[str]:
        return self.column("id")

    def _locate(self, index: int) -> tuple[pa.RecordBatch, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} samples, no number {index}")
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._batches[which], index - int(self._starts[which])


def decode_image(encoded: bytes | np.ndarray) -> np.ndarray:
    """uint8 (H, W, 3) RGB from JPEG or PNG bytes (or a uint8 array of them); a volume's `.npy` as it is, (D, H, W)."""
    buffer = np.frombuffer(encoded, np.uint8) if isinstance(encoded, bytes) else encoded
    if buffer[:6].tobytes() == NPY:
        return _decode_volume(buffer)
    image = cv2.imdecode(buffer, cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ValueError("the image's bytes cannot be decoded")
    return image


def decode_mask(encoded: bytes | np.ndarray) -> np.ndarray:
    """uint8 or uint16 label indices from the bytes that `encode_mask` wrote: (H, W), or (D, H, W) for a volume."""
    buffer = np.frombuffer(encoded, np.uint8) if isinstance(encoded, bytes) else encoded
    if buffer[:6].tobytes() == NPY:
        return _decode_volume(buffer)
    # cv2 is the fastest decoder here and right for grey PNGs; palette PNGs, which it would turn into colours, are never stored.
    mask = cv2.imdecode(buffer, cv2.IMREAD_UNCHANGED)
    if mask is None or mask.ndim != 2:
        raise ValueError("the mask's bytes are not a single-channel PNG")
    return mask


def encode_mask(mask: np.ndarray) -> bytes:
    """The PNG bytes of label indices uint8/uint16 (H, W), `.npy` bytes for (D, H, W); the same on every machine with this cv2."""
    assert mask.ndim in (2, 3) and mask.dtype in (np.uint8, np.uint16), f"{mask.dtype} {mask.shape} is no label mask"
    if mask.ndim == 3:
        file = io.BytesIO()
        np.save(file, mask, allow_pickle=False)
        return file.getvalue()
    done, data = cv2.imencode(".png", mask)
    assert done
    return data.tobytes()


def _decode_volume(buffer: np.ndarray) -> np.ndarray:
    volume: np.ndarray = np.load(io.BytesIO(buffer.tobytes()), allow_pickle=False)
    return volume


def encode_image(image: np.ndarray) -> bytes:
    """The PNG bytes of an image uint8 (H, W, 3) RGB."""
    assert image.ndim == 3 and image.dtype == np.uint8, f"{image.dtype} {image.shape} is no RGB image"
    done, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    assert done
    return data.tobytes()


def image_size(encoded: bytes) -> tuple[int, int]:
    """(height, width) of encoded image bytes, read from the header alone."""
    with Image.open(io.BytesIO(encoded)) as image:
        return image.height, image.width


def dataset_digest(split_digests: dict[str, str], classes: Sequence[ClassInfo]) -> str:
    """One sha256 over the splits' digests and the class table: equal digests mean equal data."""
    text = json.dumps([sorted(split_digests.items()), [asdict(c) for c in classes]])
    return hashlib.sha256(text.encode()).hexdigest()


def write_info(folder: Path, info: DatasetInfo) -> None:
    """Write `folder`/dataset.json, last and atomically: a folder without it is not a finished dataset."""
    temporary = folder / "dataset.json.part"
    temporary.write_text(json.dumps(asdict(info), indent=1) + "\n")
    os.replace(temporary, folder / "dataset.json")


def read_info(folder: Path) -> DatasetInfo:
    """Read `folder`/dataset.json.

    Raises:
        ValueError: the folder is not a finished dataset, or one of another format version.
    """
    path = Path(folder) / "dataset.json"
    if not path.exists():
        raise ValueError(f"{path}: missing, so this is not a finished dataset. Run `dvc repro` so that convert writes it.")
    document = json.loads(path.read_text())
    if document.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{path}: format version {document.get('format_version')}, this code reads {FORMAT_VERSION}. Run convert again."
        )
    document["classes"] = tuple(ClassInfo(**{**c, "colour": tuple(c["colour"])}) for c in document["classes"])
    document["mean"], document["std"] = tuple(document["mean"]), tuple(document["std"])
    return DatasetInfo(**document)
