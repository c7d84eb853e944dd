"""ISBI 2012: stacks and single sections, their order and groups, the real sections where this machine has them, and the preset."""

import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.convert import convert
from segpipe.datasets import isbi_em
from segpipe.params import read_params
from segpipe.shards import Split
from tests.imports import ROOT


def write_stack(path: Path, pages: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(path, save_all=True, append_images=others)
    return pages


def make_stacks(folder: Path, name: str = "train", *, pages: int = 12, dtype: type = np.uint8) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(len(name))
    volume = rng.integers(0, np.iinfo(dtype).max + 1, (pages, 20, 24)).astype(dtype)
    labels = ((rng.random((pages, 20, 24)) < 0.7) * 255).astype(np.uint8)
    return write_stack(folder / f"{name}-volume.tif", volume), write_stack(folder / f"{name}-labels.tif", labels)


def make_sections(folder: Path, numbers: list[int]) -> Path:
    for number in numbers:
        for kind, values in (("image", np.full((8, 9), number, np.uint8)), ("label", np.eye(8, 9, dtype=np.uint8) * 255)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(folder / kind / f"{number}.png")
    return folder


@pytest.mark.parametrize("inside", ["", "ISBI-2012-challenge", "a/b/c"])
def test_stacks_become_sections(tmp_path: Path, inside: str) -> None:
    volume, labels = make_stacks(tmp_path / inside)
    scan = isbi_em.scan(tmp_path)
    assert [c.name for c in scan.classes] == ["membrane", "cell"] and scan.labels == {0: 0, 255: 1}
    assert [i.id for i in scan.items] == [f"train-{page:02d}" for page in range(12)]
    assert {i.split for i in scan.items} == {None}
    assert len({i.source for i in scan.items}) == 12
    groups = [i.group for i in scan.items]
    assert groups == ["train-00-04"] * 5 + ["train-05-09"] * 5 + ["train-10-14"] * 2
    for page, item in enumerate(scan.items):
        raw = isbi_em.load(item)
        with Image.open(io.BytesIO(raw.image)) as image:
            assert image.mode == "L" and (np.asarray(image) == volume[page]).all()
        assert raw.labels.dtype == np.uint8 and (raw.labels == labels[page]).all()


def test_a_16_bit_stack_keeps_its_bits_and_a_1_bit_one_its_meaning(tmp_path: Path) -> None:
    volume, _ = make_stacks(tmp_path, dtype=np.uint16)
    inside = write_stack(tmp_path / "train-labels.tif", np.random.default_rng(0).random((12, 20, 24)) < 0.5)
    for page, item in enumerate(isbi_em.scan(tmp_path).items):
        raw = isbi_em.load(item)
        with Image.open(io.BytesIO(raw.image)) as image:
            assert image.mode == "I;16" and (np.asarray(image) == volume[page]).all()
        assert (raw.labels == inside[page] * 255).all()


def test_a_float_stack_is_refused(tmp_path: Path) -> None:
    make_stacks(tmp_path)
    write_stack(tmp_path / "train-volume.tif", np.zeros((12, 20, 24), np.float32))
    with pytest.raises(ValueError, match="page 0 holds float32 values; save the stack with 8 or 16 bits"):
        isbi_em.load(isbi_em.scan(tmp_path).items[0])


def test_stretch_sets_the_groups(tmp_path: Path) -> None:
    make_stacks(tmp_path)
    assert Counter(i.group for i in isbi_em.scan(tmp_path, stretch=8).items) == {"train-00-07": 8, "train-08-15": 4}
    assert len({i.group for i in isbi_em.scan(tmp_path, stretch=1).items}) == 12
    with pytest.raises(ValueError, match="stretch: 0; must be 1 or more"):
        isbi_em.scan(tmp_path, stretch=0)


def test_the_test_stack_is_the_test_split_on_demand(tmp_path: Path) -> None:
    make_stacks(tmp_path)
    _, labels = make_stacks(tmp_path, "test", pages=4)
    assert len(isbi_em.scan(tmp_path).items) == 12
    scan = isbi_em.scan(tmp_path, test_stack=True)
    assert Counter((i.id.split("-")[0], i.split) for i in scan.items) == {("train", "train"): 12, ("test", "test"): 4}
    assert not {i.group for i in scan.items if i.split == "train"} & {i.group for i in scan.items if i.split == "test"}
    assert (isbi_em.load(scan.items[-1]).labels == labels[-1]).all()
    (tmp_path / "test-labels.tif").unlink()
    with pytest.raises(ValueError, match="test-labels.tif: missing"):
        isbi_em.scan(tmp_path, test_stack=True)


def test_sections_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = make_sections(tmp_path / "data" / "membrane" / "train", [0, 1, 2, 9, 10, 11])
    (tmp_path / "data" / "membrane" / "test").mkdir()
    Image.new("L", (9, 8)).save(tmp_path / "data" / "membrane" / "test" / "0.png")  # unlabelled, as in the real tree
    scan = isbi_em.scan(tmp_path)
    assert [(i.id, i.group) for i in scan.items] == [
        ("train-00", "train-00-04"),
        ("train-01", "train-00-04"),
        ("train-02", "train-00-04"),
        ("train-09", "train-05-09"),
        ("train-10", "train-10-14"),
        ("train-11", "train-10-14"),
    ]
    raw = isbi_em.load(scan.items[4])
    assert raw.image == (folder / "image" / "10.png").read_bytes()
    assert (raw.labels == np.eye(8, 9) * 255).all()
    assert all((tmp_path / item.source).samefile(item.image) for item in scan.items)
    with pytest.raises(ValueError, match="test_stack: .*test-labels.tif"):
        isbi_em.scan(tmp_path, test_stack=True)


def test_halves_of_pairs_are_faults(tmp_path: Path) -> None:
    make_sections(tmp_path, [0, 1, 2])
    (tmp_path / "label" / "1.png").unlink()
    (tmp_path / "image" / "2.png").unlink()
    scan = isbi_em.scan(tmp_path)
    assert [i.id for i in scan.items] == ["train-00"]
    assert [(f.kind, f.example, f.severity) for f in scan.faults] == [
        ("no_mask", "image/1.png", "error"),
        ("no_image", "label/2.png", "error"),
    ]


@pytest.mark.parametrize("name", ["30.png", "cell_1.png", "1.5.png", "00.png"])
def test_other_data_of_this_form_is_refused(tmp_path: Path, name: str) -> None:
    make_sections(tmp_path, [0, 1])
    Image.new("L", (9, 8)).save(tmp_path / "image" / name)
    with pytest.raises(ValueError, match=r"\.png: a section is named by its number"):
        isbi_em.scan(tmp_path)


def test_stacks_that_do_not_fit_are_named(tmp_path: Path) -> None:
    make_stacks(tmp_path)
    write_stack(tmp_path / "train-labels.tif", np.zeros((7, 20, 24), np.uint8))
    with pytest.raises(ValueError, match=r"train-labels.tif: 7 pages, but train-volume.tif has 12"):
        isbi_em.scan(tmp_path)
    (tmp_path / "train-labels.tif").unlink()
    with pytest.raises(ValueError, match=r"train-labels.tif: missing"):
        isbi_em.scan(tmp_path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("part", [0.0, 0.01, 0.2, 0.8])
def test_a_damaged_stack_is_named(tmp_path: Path, part: float) -> None:
    make_stacks(tmp_path)
    path = tmp_path / "train-volume.tif"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(ValueError, match=r"train-(volume|labels).tif"):
        isbi_em.scan(tmp_path)


def test_a_stack_converts_by_stretches(tmp_path: Path) -> None:
    _, labels = make_stacks(tmp_path / "raw", pages=30)
    rule = read_params(ROOT / "presets" / "isbi2012.yaml").datasets["isbi2012"].splits
    info, _ = convert(
        tmp_path / "raw", tmp_path / "out", name="isbi", scan=isbi_em.scan(tmp_path / "raw"), load=isbi_em.load, splits=rule
    )
    assert info.splits == {"train": 20, "val": 5, "test": 5}
    for split in ("train", "val", "test"):
        samples = Split(tmp_path / "out", split)
        for i, name in enumerate(samples.ids):
            assert (samples.arrays(i)[1] == labels[int(name[-2:])] // 255).all()


def test_preset_is_complete_and_splits_the_sample_too(samples: Path, tmp_path: Path) -> None:
    """The salt of the preset fills all splits from 24 sections as from 30, so that it can be tried on fewer."""
    params = read_params(ROOT / "presets" / "isbi2012.yaml")
    row = params.datasets["isbi2012"]
    raw = samples / "isbi2012_membrane"
    scan = isbi_em.scan(raw, **row.options)
    info, audit = convert(raw, tmp_path / "out", name="isbi2012", scan=scan, load=isbi_em.load, splits=row.splits)
    assert info.splits == {"train": 14, "val": 5, "test": 5}
    assert not audit.errors and "group_in_two_splits" not in {f.kind for f in audit.findings}
    networks = {name: e.options["padding"] for name, e in params.experiments.items()}
    assert networks == {"unet-paper": "valid", "unet": "same"}


def test_real_sections_are_those_of_the_files(samples: Path, tmp_path: Path) -> None:
    raw = samples / "isbi2012_membrane"
    scan = isbi_em.scan(raw)
    assert [i.id for i in scan.items] == [f"train-{n:02d}" for n in range(24)] and not scan.faults
    rule = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}, "by": "id"}
    info, _ = convert(raw, tmp_path / "out", name="isbi", scan=scan, load=isbi_em.load, splits=rule)
    assert sum(info.splits.values()) == 24
    cells = total = 0
    for split in ("train", "val", "test"):
        written = Split(tmp_path / "out", split)
        for i, name in enumerate(written.ids):
            folder = raw / "data" / "membrane" / "train"
            with Image.open(folder / "label" / f"{int(name[-2:])}.png") as image:
                source = np.array(image)
            assert (written.arrays(i)[1] == (source == 255)).all() and set(np.unique(source)) == {0, 255}
            with Image.open(folder / "image" / f"{int(name[-2:])}.png") as image:
                assert (written.arrays(i)[0] == np.array(image)[..., None]).all()
            cells, total = cells + (source == 255).sum(), total + source.size
    assert sum(info.pixels[s][1] for s in info.pixels) == cells
    assert 1 - cells / total == pytest.approx(0.22, abs=0.01), "membrane's share"
