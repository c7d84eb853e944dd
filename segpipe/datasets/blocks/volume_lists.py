"""The ids of volumes, and their splits where lists name them: train.list, val.list and test.list, or .txt, one id in a line."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segpipe.datasets.blocks import texts, voxels
from segpipe.datasets.blocks.volume_pairs import Pair
from segpipe.layout import WARNING, Fault
from segpipe.shards import SPLITS


def settle(raw: Path, pairs: Sequence[Pair]) -> tuple[list[tuple[str, str | None, Pair]], list[Fault]]:
    """(id, split, pair) for each of `pairs`, and a warning for each one that the lists leave out, which is then left out here.

    The id is the file's name without its ending, else (the names are not unique, or not those of the lists) the name of its
    folder, else its path with _ between the folders.

    Raises:
        ValueError: a list names a volume that is not there, or two lists name the same one.
    """
    listed = _listed(raw)
    schemes = [
        [pair.name for pair in pairs],
        [pair.image.parent.name for pair in pairs],
        ["_".join((*pair.image.relative_to(raw).parent.parts, pair.name)) for pair in pairs],
    ]
    unique = [names for names in schemes if max(Counter(names).values(), default=0) <= 1]
    names = next((names for names in unique if listed.keys() <= set(names)), (unique or schemes)[0])
    missing = next((name for name in listed if name not in set(names)), None)
    if missing is not None:
        _, path, number = listed[missing]
        there = f"There is {names[0]}, for example." if names else "There is none at all."
        raise ValueError(f"{path}, line {number}: no volume {missing!r}. {there} Fetch it, or remove the line.")
    if not listed:
        return [(name, pair.split, pair) for name, pair in zip(names, pairs, strict=True)], []
    chosen: list[tuple[str, str | None, Pair]] = [
        (name, listed[name][0], pair) for name, pair in zip(names, pairs, strict=True) if name in listed
    ]
    what, fix = (
        "a volume is in none of the lists and was left out",
        "Add it to train.list, val.list or test.list, or remove the lists.",
    )
    return chosen, [
        Fault(kind="no_split", what=what, example=pair.image.relative_to(raw).as_posix(), fix=fix, severity=WARNING)
        for name, pair in zip(names, pairs, strict=True)
        if name not in listed
    ]


def _listed(raw: Path) -> dict[str, tuple[str, Path, int]]:
    """{id: (split, list, line number)}"""
    listed: dict[str, tuple[str, Path, int]] = {}
    for split in SPLITS:
        paths = sorted(path for end in ("list", "txt") for path in raw.rglob(f"{split}.{end}"))
        if len(paths) > 1:
            raise ValueError(
                f"{paths[1]}: a second list of {split}, beside {paths[0]}. Remove one, or set `source` to a folder below."
            )
        for path in paths:
            for number, line in enumerate(texts.read(path).splitlines(), 1):
                name = line.strip().replace("/", "_")
                name = name[: len(name) - len(voxels.ending(Path(name)) or "")]
                if name in listed:
                    other = listed[name]
                    raise ValueError(
                        f"{path}, line {number}: {name!r} is in {other[1].name}, line {other[2]}, too. Remove one of them."
                    )
                if name:
                    listed[name] = (split, path, number)
    return listed
