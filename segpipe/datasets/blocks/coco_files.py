"""COCO's annotation files, read as streams: an index in memory, the annotations themselves by their place in the file.

Such a file is one JSON object of lists: images {id, file_name, height, width}, annotations {id, image_id, category_id,
segmentation, iscrowd} and categories {id, name, supercategory}. That of COCO 2017 holds 860,001 annotations in 450 MB, which are
several gigabytes as Python objects. Each is decoded once and dropped again; what stays of it are its first byte and its length in
the file (which a parser of events, such as ijson, does not tell), so that whoever draws an image reads the few lines of that image.
"""

import codecs
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from segpipe.layout import Fault

BLOCK = 2**22
LONGEST = 2**26
"""Bytes: read at once; the longest single entry that is looked for before the file counts as damaged."""
LISTS = ("images", "annotations", "categories")
BLANK = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()


@dataclass(frozen=True, kw_only=True, slots=True)
class Listed:
    """An image of an annotation file. Its size is 0 where the file gives none.

    `annotations` is int64 (n, 3): first byte, length in bytes, number of the category in `Index.categories` (-1 if it has none).
    """

    name: str
    height: int
    width: int
    annotations: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Index:
    """What is kept of an annotation file: categories by their id, images in the file's order. `panoptic` is one of segments."""

    categories: tuple[dict[str, Any], ...]
    images: tuple[Listed, ...]
    faults: tuple[Fault, ...]
    panoptic: bool

    @property
    def count(self) -> int:
        """The number of annotations of listed images."""
        return sum(len(image.annotations) for image in self.images)


def entries(path: Path) -> Iterator[tuple[str, int, int, dict[str, Any]]]:
    """Each entry of the three lists of an annotation file, in the file's order: list, first byte, length in bytes, entry.

    Raises:
        ValueError: the file is no JSON object, is damaged or cut, or an entry is no object.
    """
    with open(path, "rb") as file:
        reader = _Reader(path, file)
        more = reader.opens("{", "}")
        while more:
            key = reader.value()[2]
            reader.take(":")
            if reader.peek() == "[":
                inside = reader.opens("[", "]")
                while inside:
                    first, length, entry = reader.value()
                    if key in LISTS:
                        if not isinstance(entry, dict):
                            raise ValueError(f"{path}: byte {first}: {str(entry)[:40]!r} in the list {key!r}; should be an object")
                        yield key, first, length, entry
                    inside = reader.goes_on("]")
            else:
                reader.value()
            more = reader.goes_on("}")


def read(path: Path, places: Iterable[Sequence[int]]) -> list[dict[str, Any]]:
    """The entries at `places`, each (first byte, length in bytes, ...), in that order."""
    found = []
    with open(path, "rb") as file:
        for first, length, *_ in places:
            file.seek(int(first))
            found.append(json.loads(file.read(int(length))))
    return found


def looks_like_one(path: Path) -> bool:
    """Whether the first megabyte of a JSON file starts one of the lists of an annotation file. Decodes nothing."""
    with open(path, "rb") as file:
        head = file.read(2**20)
    return re.search(rb'"(images|annotations|categories)"\s*:\s*\[', head) is not None


def index(path: Path) -> Index:
    """Read an annotation file once and keep where each annotation is.

    An annotation of an unlisted image, of an unlisted category, or without a drawable outline is a fault; the first has no place in
    the index, the second has the category -1.

    Raises:
        ValueError: as `entries`; a list is missing, or an image or a category lacks its id or name.
    """
    images: dict[Any, tuple[str, int, int]] = {}
    categories: dict[Any, dict[str, Any]] = {}
    image_numbers: dict[Any, int] = {}
    category_numbers: dict[Any, int] = {}
    places = array("q")  # image, first byte, length, category of each annotation; both numbered as they are met
    faults: list[Fault] = []
    panoptic = False
    for key, first, length, entry in entries(path):
        if key == "annotations":
            segments = "segments_info" in entry
            panoptic |= segments
            image, category = _id(entry, "image_id", path), None if segments else _id(entry, "category_id", path)
            places.append(image_numbers.setdefault(image, len(image_numbers)))
            places.extend((first, length, category_numbers.setdefault(category, len(category_numbers))))
            if not segments and (wrong := _wrong_outline(entry)):
                faults.append(_fault("bad_polygon", wrong, path, entry, "Draw it again, or remove it from the file."))
            continue
        name = entry.get("file_name" if key == "images" else "name")
        if not isinstance(name, str) or not name:
            raise ValueError(f"{path}: the entry of {key!r} at byte {first} has the name {name!r}; should be text")
        number = _id(entry, "id", path)
        if number in (images if key == "images" else categories):
            what = f"an id is taken twice in the list {key!r}"
            faults.append(_fault("bad_annotation", what, path, entry, "Give each its own id and export again.", word=key[:-1]))
        elif key == "images":
            images[number] = name, _side(entry.get("height")), _side(entry.get("width"))
        else:
            categories[number] = entry
    for key, met in (("images", images), ("categories", categories)):
        if not met:
            raise ValueError(f"{path}: has no list {key!r}, or an empty one. Is it a COCO annotation file of objects?")
    order = sorted(categories, key=lambda number: (isinstance(number, str), number))
    final = {category: place for place, category in enumerate(order)}
    table = np.frombuffer(places, np.int64).reshape(-1, 4) if places else np.zeros((0, 4), np.int64)
    known = np.array([final.get(category, -1) for category in category_numbers] or [-1], np.int64)
    table = np.column_stack([table[:, :3], known[table[:, 3]]])[np.argsort(table[:, 0], kind="stable")]
    bounds = np.searchsorted(table[:, 0], np.arange(len(image_numbers) + 1))
    by_image = {image: table[bounds[i] : bounds[i + 1], 1:] for image, i in image_numbers.items()}
    listed = tuple(
        Listed(name=name, height=height, width=width, annotations=by_image.pop(number, table[:0, 1:]))
        for number, (name, height, width) in images.items()
    )
    unlisted = read(path, (place for annotations in by_image.values() for place in annotations))
    nameless = read(path, table[table[:, 3] < 0, 1:]) if category_numbers.keys() - categories.keys() - {None} else []
    for entry in unlisted:
        what, fix = "an annotation of an image that is not listed", "Add it to the list 'images', or remove the annotation."
        faults.append(_fault("unknown_image", what, path, entry, fix))
    for entry in nameless:
        what = f"an annotation of the category {entry.get('category_id')!r}, which is not listed"
        fix = "Add it to the list 'categories', or remove the annotation; until then it is left out."
        faults.append(_fault("unknown_category", what, path, entry, fix))
    return Index(categories=tuple(categories[i] for i in order), images=listed, faults=tuple(faults), panoptic=panoptic)


def _id(entry: dict[str, Any], key: str, path: Path) -> int | str:
    value = entry.get(key)
    if not isinstance(value, int | str):
        raise ValueError(f"{path}: an entry has the {key} {value!r}: {json.dumps(entry)[:80]}; should be a number or text")
    return value


def _side(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 < value < 2**31 else 0


def _wrong_outline(entry: dict[str, Any]) -> str | None:
    """What an annotation lacks to be drawn, None if nothing; whether its outline is whole shows when it is drawn."""
    outline = entry.get("segmentation")
    if not outline:
        return "an annotation has no polygon and no run lengths"
    for polygon in outline if isinstance(outline, list) else ():
        if isinstance(polygon, list) and len(polygon) < 6:
            return f"a polygon of {len(polygon) / 2:g} points"
    return None


def _fault(kind: str, what: str, path: Path, entry: dict[str, Any], fix: str, *, word: str = "annotation") -> Fault:
    return Fault(kind=kind, what=what, example=f"{path.name}, {word} {entry.get('id')!r}", fix=fix)


class _Reader:
    """A window that moves over a JSON file. One character stands for one byte: places in the text are places in the file."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path, self._file = path, file
        head = file.read(len(codecs.BOM_UTF8))
        marked = head == codecs.BOM_UTF8
        self._text, self._at, self._before = "" if marked else head.decode("latin-1"), 0, len(head) * marked

    def peek(self) -> str:
        """The next character that is not blank, which is where the reader then stands; empty at the end of the file."""
        while True:
            match = BLANK.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._extend():
                return ""

    def take(self, character: str) -> None:
        """Step over `character`."""
        if self.peek() != character:
            raise self._error(self._at, f"{character!r} is missing")
        self._at += 1

    def opens(self, opening: str, closing: str) -> bool:
        """Step over `opening`, and over `closing` if it follows at once; whether there is something between them."""
        self.take(opening)
        empty = self.peek() == closing
        self._at += empty
        return not empty

    def goes_on(self, closing: str) -> bool:
        """Step over a comma, or over `closing`, after which the list or object does not go on."""
        if self.peek() == ",":
            self._at += 1
            return True
        self.take(closing)
        return False

    def value(self) -> tuple[int, int, Any]:
        """Decode the value that starts here: its first byte, its length in bytes, the value."""
        self.peek()
        while True:
            try:
                value, end = DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > LONGEST or not self._extend():
                    raise self._error(error.pos, error.msg) from error
                continue
            except RecursionError as error:
                raise self._error(self._at, "lists are nested too deeply") from error
            if end + 2 < len(self._text) or not self._extend():  # 1 at the end of the window may be the start of 1.5 or 1e-3
                break
        first, length = self._before + self._at, end - self._at
        if not self._text.isascii():
            try:
                value = json.loads(self._text[self._at : end].encode("latin-1"))
            except UnicodeDecodeError as error:
                raise self._error(self._at, "the text is not UTF-8") from error
        self._at = end
        return first, length, value

    def _extend(self) -> bool:
        """Drop what was read and append the next block; False at the end of the file."""
        block = self._file.read(BLOCK)
        if not block:
            return False
        self._before += self._at
        self._text, self._at = self._text[self._at :] + block.decode("latin-1"), 0
        return True

    def _error(self, at: int, reason: str) -> ValueError:
        place = f"byte {self._before + at}"
        return ValueError(
            f"{self._path}: no valid JSON at {place}: {reason}. The file is damaged or cut; fetch or export it again."
        )
