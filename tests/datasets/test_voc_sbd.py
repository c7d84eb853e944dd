"""SBD beside VOC: which of its images join train, and its masks and instances, in made-up folders of both layouts."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from segpipe.datasets import voc
from tests.datasets.test_voc import add, masks, photo, tree


def sbd(folder: Path, lists: dict[str, list[str]], *, images: bool = True) -> Path:
    """SBD as MATLAB wrote it: 1x1 structures, compressed, with a cell of sparse boundaries that is not wanted."""
    boundaries = np.empty((2, 1), object)
    boundaries[:, 0] = [scipy.sparse.csc_matrix(np.eye(3)) for _ in range(2)]
    for kind in ("cls", "inst", "img"):
        (folder / kind).mkdir(parents=True)
    for seed, name in enumerate(name for names in lists.values() for name in names):
        labels, objects = masks(seed)
        labels, objects = np.where(labels == 255, 0, labels), np.where(objects == 255, 0, objects)
        present = np.array([[12], [15]], np.uint8)
        cls = {"Boundaries": boundaries, "Segmentation": labels, "CategoriesPresent": present}
        scipy.io.savemat(folder / "cls" / f"{name}.mat", {"GTcls": cls}, do_compression=True)
        inst = {"Boundaries": boundaries, "Segmentation": objects, "Categories": np.array([[15], [12], [15]], np.uint8)}
        scipy.io.savemat(folder / "inst" / f"{name}.mat", {"GTinst": inst}, do_compression=seed % 2 == 0)
        if images:
            photo(folder / "img" / f"{name}.jpg", 50 + seed)
    for split, names in lists.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
    return folder


def test_sbd_joins_train_but_never_vocs_val(tmp_path: Path) -> None:
    """The rule that gives 10,582: VOC's train, and all of SBD that VOC's segmentation does not annotate itself."""
    tree(tmp_path / "VOCdevkit" / "VOC2012", {"train": ["v1", "both1"], "val": ["held1", "held2", "both2"]})
    add(tmp_path / "VOCdevkit" / "VOC2012", "s1", 9)  # SBD's images are VOC's too
    sbd(tmp_path / "benchmark_RELEASE" / "dataset", {"train": ["s1", "held1", "both1"], "val": ["both2", "s2"]})
    plain, scan = voc.scan(tmp_path), voc.scan(tmp_path, train_aug=True)
    assert [i.id for i in plain.items] == ["v1", "both1", "held1", "held2", "both2"]
    assert [(i.id, i.split) for i in scan.items if i not in plain.items] == [("s1", "train"), ("s2", "train")]
    assert len({i.id for i in scan.items}) == len(scan.items) == 7
    assert scan.items[1].mask is not None and scan.items[1].mask.suffix == ".png", "VOC's own annotation wins"
    for item, seed in ((scan.items[5], 0), (scan.items[6], 4)):
        assert (tmp_path / item.source).samefile(item.image)
        raw = voc.load(pickle.loads(pickle.dumps(item)))
        cls = scipy.io.loadmat(item.mask)["GTcls"]["Segmentation"][0, 0]
        inst = scipy.io.loadmat(item.mask.parent.parent / "inst" / item.mask.name)["GTinst"][0, 0]
        assert (raw.labels == cls).all() and raw.labels.dtype == np.uint8
        assert (cls == np.where(masks(seed)[0] == 255, 0, masks(seed)[0])).all()
        assert [row["category"] for row in raw.instances] == inst["Categories"].ravel().tolist() == [15, 12, 15]
        assert all((row["mask"] == (inst["Segmentation"] == k)).all() for k, row in enumerate(raw.instances, 1))


def test_vocs_val_stays_out_of_train_even_if_no_split_takes_it(tmp_path: Path) -> None:
    tree(tmp_path / "VOC2012", {"train": ["v1"], "val": ["held"]})
    sbd(tmp_path / "benchmark_RELEASE" / "dataset", {"train": ["held", "s1"], "val": []})
    scan = voc.scan(tmp_path, lists={"train": "train"}, train_aug=True)
    assert [i.id for i in scan.items] == ["v1", "s1"]


def test_sbd_without_photos_of_its_own_uses_vocs(tmp_path: Path) -> None:
    root = tree(tmp_path / "VOC2012", {"train": ["v1"], "val": ["v2"]})
    sbd(tmp_path / "sbd" / "benchmark_RELEASE" / "dataset", {"train": ["2012_009999"], "val": []}, images=False)
    item = voc.scan(tmp_path, train_aug=True).items[-1]
    assert item.image == root / "JPEGImages" / "2012_009999.jpg" and item.split == "train"


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ("cls/s1.mat", r"cls/s1.mat: missing, but named in .*train.txt, line 1"),
        ("img/s2.jpg", r"img/s2.jpg: missing, but named in .*val.txt, line 1"),
        ("val.txt", r"dataset/val.txt: missing"),
        ("../../VOC2012/ImageSets/Segmentation/val.txt", "VOC's val, which SBD annotates too, out of train"),
    ],
)
def test_errors_of_sbd(tmp_path: Path, broken: str, words: str) -> None:
    tree(tmp_path / "VOC2012", {"train": ["v1"], "val": ["v2"]})
    folder = sbd(tmp_path / "benchmark_RELEASE" / "dataset", {"train": ["s1"], "val": ["s2"]})
    (folder / broken).resolve().unlink()
    with pytest.raises(ValueError, match=words):
        voc.scan(tmp_path, train_aug=True)


@pytest.mark.parametrize(
    ("kind", "content", "words"),
    [
        ("cls", {"GTcls": {"Boundaries": 1}}, "no field 'Segmentation'; it has: Boundaries"),
        (
            "inst",
            {"GTinst": {"Segmentation": np.eye(3), "Categories": [15]}},
            r"the instances are \(3, 3\), the class mask \(24, 32\)",
        ),
        ("inst", {"GTinst": {"Segmentation": np.full((24, 32), 2), "Categories": [15]}}, "instance 2 has the class 0"),
        ("inst", {"GTinst": {"Segmentation": np.full((24, 32), 1), "Categories": [21]}}, "instance 1 has the class 21"),
    ],
)
def test_unfit_files_of_sbd(tmp_path: Path, kind: str, content: dict, words: str) -> None:
    tree(tmp_path / "VOC2012", {"train": ["v1"], "val": ["v2"]})
    folder = sbd(tmp_path / "benchmark_RELEASE" / "dataset", {"train": ["s1"], "val": []})
    scipy.io.savemat(folder / kind / "s1.mat", content)
    with pytest.raises(ValueError, match=words):
        voc.load(voc.scan(tmp_path, train_aug=True).items[-1])
