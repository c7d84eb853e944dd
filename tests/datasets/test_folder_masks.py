"""A user's own folder: what the values of its masks mean. What could be read wrongly is said, or refused with lines to write."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import yaml
from PIL import Image
from pycocotools import mask as coco_mask

from segpipe.audit import AuditError
from segpipe.convert import convert
from segpipe.datasets import folder
from segpipe.layout import WARNING, Fault, Scan
from segpipe.shards import Split

RULE = {"fractions": {"train": 0.6, "val": 0.2, "test": 0.2}, "by": "id"}
SHAPE = (16, 24)


def values(*levels: int, seed: int = 0) -> np.ndarray:
    """uint8 (16, 24) with all of `levels` in blocks."""
    rng = np.random.default_rng(seed)
    blocks = rng.permuted(np.resize(np.array(levels), 24)).reshape(4, 6)
    return np.kron(blocks, np.ones((4, 4), int)).astype(np.uint8)


def make(raw: Path, masks: list[np.ndarray], *, ending: str = ".png", mode: str | None = None) -> Path:
    for kind in ("images", "masks"):
        (raw / kind).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(9)
    for number, mask in enumerate(masks):
        Image.fromarray(rng.integers(0, 256, (*SHAPE, 3), np.uint8)).save(raw / "images" / f"{number}.png")
        path = raw / "masks" / f"{number}{ending}"
        if ending == ".npy":
            np.save(path, mask)
        elif ending == ".mat":
            scipy.io.savemat(path, {"labels": mask})
        else:
            picture = Image.fromarray(mask)
            (picture if mode is None else picture.convert(mode)).save(path)
    return raw


def told(scan: Scan) -> list[str]:
    return [fault.kind for fault in scan.faults]


def converted(raw: Path, out: Path, **options: Any) -> dict[str, np.ndarray]:
    """{id: mask} of all splits, as the engine wrote them."""
    convert(raw, out, name="mine", scan=folder.scan(raw, **options), load=folder.load, splits=RULE)
    return {s[i].id: s.arrays(i)[1] for s in (Split(out, name) for name in ("train", "val", "test")) for i in range(len(s))}


def test_black_and_white_masks_are_two_classes_and_that_is_said(tmp_path: Path) -> None:
    masks = [values(0, 255, seed=i) for i in range(20)]
    scan = folder.scan(make(tmp_path / "raw", masks))
    assert [c.name for c in scan.classes] == ["background", "foreground"] and scan.labels == {0: 0, 255: 1}
    (fault,) = scan.faults
    assert (fault.kind, fault.severity) == ("binary_mask", WARNING) and "0 and 255" in fault.what and "50 %" in fault.what
    line = yaml.safe_load(fault.fix.split("`")[1])
    assert folder.scan(tmp_path / "raw", **line).faults == (), "the line that the warning gives settles it"
    for name, mask in converted(tmp_path / "raw", tmp_path / "out").items():
        assert (mask == (masks[int(name)] == 255)).all()


@pytest.mark.parametrize("mode", ["1", "RGB", "RGBA", "LA", "P"])
def test_black_and_white_in_any_kind_of_picture(tmp_path: Path, mode: str) -> None:
    mask = values(0, 255)
    scan = folder.scan(make(tmp_path, [mask] * 2, mode=mode))
    assert told(scan) == ["binary_mask"]
    raw = folder.load(scan.items[0])
    assert (np.vectorize(scan.labels.get)(raw.labels) == (mask == 255)).all()


@pytest.mark.parametrize(
    ("levels", "names", "labels"),
    [
        ([0, 1, 2], ["class 0", "class 1", "class 2"], {0: 0, 1: 1, 2: 2}),
        ([0, 2, 255], ["class 0", "class 1", "class 2"], {0: 0, 1: 1, 2: 2, 255: 255}),
        ([1, 2], ["class 1", "class 2"], {1: 0, 2: 1}),
        ([0, 50, 100], ["class 0", "class 50", "class 100"], {0: 0, 50: 1, 100: 2}),
    ],
)
def test_without_a_table_names_are_made_up_and_that_is_said(
    tmp_path: Path, levels: list[int], names: list[str], labels: dict[int, int]
) -> None:
    scan = folder.scan(make(tmp_path, [values(*levels)] * 2))
    assert [c.name for c in scan.classes] == names and scan.labels == labels
    (fault,) = scan.faults
    assert (fault.kind, fault.severity) == ("made_up_classes", WARNING) and "classes.yaml" in fault.fix
    assert ("255 is ignored" in fault.what) == (255 in levels)


def test_palette_pictures_give_their_indices_and_show_their_colours(tmp_path: Path) -> None:
    mask = values(0, 1, 2, 255)
    picture = Image.fromarray(mask)
    picture.putpalette([10, 20, 30, 250, 0, 0, 0, 250, 0] + 247 * [255, 255, 255])
    picture.save(make(tmp_path, [mask]) / "masks" / "0.png")
    scan = folder.scan(tmp_path)
    assert (folder.load(scan.items[0]).labels == mask).all()
    assert [c.colour for c in scan.classes] == [(10, 20, 30), (250, 0, 0), (0, 250, 0)] and scan.labels[255] == 255


def faint(masks: int) -> list[np.ndarray]:
    """Two classes whose edges were smoothed."""
    ramp = np.full((*SHAPE,), 255, np.uint8)
    ramp[:, :12] = 0
    ramp[0, :20] = np.arange(20) * 12 + 5
    return [ramp] * masks


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ([values(0)] * 3, "hold nothing but 0"),
        ([values(0, 1), values(0, 255)], "some masks hold 0 and 1, others 0 and 255"),
        ([values(0, 85, 170, 255)], r'255 may be a class or mean "ignore"(.|\n)*class 85: 85  # 25 % of the pixels'),
        (faint(2), "two classes with soft edges.*`threshold: 128`"),
        ([np.arange(384).reshape(SHAPE).astype(np.uint16)], "384 different values from 0 to 383.*`instances: true`"),
        ([(np.arange(384).reshape(SHAPE) // 4).astype(np.uint8)], "96 different values from 0 to 95.*`instances: true`"),
        ([(np.arange(384).reshape(SHAPE) // 4 % n).astype(np.uint8) for n in (9, 11, 6)], "from 0 to 10.*`instances: true`"),
        ([np.random.default_rng(0).integers(0, 256, (*SHAPE, 3), np.uint8)], r"with many colours \(384; masks looked at: 1\)"),
    ],
)
def test_values_that_may_mean_two_things_are_refused(tmp_path: Path, masks: list[np.ndarray], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        folder.scan(make(tmp_path, masks))
    assert str(tmp_path) in str(caught.value) and ".png" in str(caught.value)


def test_the_lines_in_a_refusal_are_a_table_that_works(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 128, 7]], np.uint8)
    masks = [colours[values(0, 1, 2, seed=i) % 3] for i in range(20)] + [colours[np.zeros(SHAPE, int)]]
    raw = make(tmp_path / "raw", masks)
    with pytest.raises(ValueError, match="is a colour picture. Say which colour is which class") as caught:
        folder.scan(raw)
    lines = str(caught.value).partition("):\n")[2]
    (raw / "classes.yaml").write_text(lines)
    table = yaml.safe_load(lines)
    assert set(map(tuple, table.values())) == {(0, 0, 0), (255, 0, 0), (0, 128, 7)}, "the mask of black alone counts as colour too"
    assert [c.colour for c in folder.scan(raw).classes] == list(map(tuple, table.values()))
    for name, mask in converted(raw, tmp_path / "out").items():
        assert (np.array(list(table.values()))[mask] == masks[int(name)]).all()


def test_colour_pictures_with_a_table_of_other_colours_or_of_numbers_are_refused(tmp_path: Path) -> None:
    raw = make(tmp_path, [np.array([[9, 0, 0], [0, 9, 0]], np.uint8)[values(0, 1)]])
    with pytest.raises(ValueError, match=r"no colour of the class table(.|\n)*\[9, 0, 0\]"):
        folder.scan(raw, classes={"a": [1, 1, 1], "b": "#020202"})
    with pytest.raises(ValueError, match=r"is a colour picture(.|\n)*\[9, 0, 0\]"):
        folder.scan(raw, classes=["a", "b"])


def test_a_palette_picture_and_a_table_of_colours_meet_by_colour(tmp_path: Path) -> None:
    picture = Image.fromarray(values(0, 1))
    picture.putpalette([0, 0, 0, 200, 0, 0])
    picture.save(make(tmp_path, [values(0)]) / "masks" / "0.png")
    scan = folder.scan(tmp_path, classes={"red": "#c80000", "black": [0, 0, 0]})
    labels = folder.load(scan.items[0]).labels
    assert scan.colours and (np.vectorize(scan.labels.get)(labels) == 1 - values(0, 1)).all()


def test_jpeg_masks_are_refused_and_a_threshold_reads_them(tmp_path: Path) -> None:
    masks = [values(0, 255, seed=i) for i in range(20)]
    raw = make(tmp_path / "raw", masks, ending=".jpg")
    for options in ({}, {"classes": ["a", "b"]}):
        with pytest.raises(ValueError, match=r"the mask 0.jpg is a JPEG.*`threshold: 128`"):
            folder.scan(raw, **options)
    for name, mask in converted(raw, tmp_path / "out", threshold=128, classes=["paper", "ink"]).items():
        assert (mask == (masks[int(name)] == 255)).all()
    with pytest.raises(ValueError, match="threshold: makes two classes, but the class table names 3: a, b, c"):
        folder.scan(raw, threshold=128, classes=["a", "b", "c"])
    with pytest.raises(ValueError, match="threshold: 128; leaves no value for `ignore`"):
        folder.scan(raw, threshold=128, ignore=3)


@pytest.mark.parametrize("ending", [".png", ".gif", ".bmp", ".tif", ".npy", ".mat"])
def test_every_kind_of_file_gives_the_values_that_were_written(tmp_path: Path, ending: str) -> None:
    mask = values(0, 1, 2, 3)
    scan = folder.scan(make(tmp_path, [mask], ending=ending), classes=["a", "b", "c", "d"])
    assert (folder.load(scan.items[0]).labels == mask).all()


@pytest.mark.parametrize("dtype", [bool, np.int64, np.float32])
def test_arrays_of_other_types(tmp_path: Path, dtype: type) -> None:
    raw = make(tmp_path, [values(0, 1).astype(dtype)], ending=".npy")
    labels = folder.load(folder.scan(raw).items[0]).labels
    assert labels.dtype.kind in "iu" and (labels == values(0, 1)).all()


@pytest.mark.parametrize("mask", [values(0, 1).astype(bool), values(20, 200), values(20, 200).astype(np.float32)])
@pytest.mark.parametrize("ending", [".npy", ".tif"])
def test_a_threshold_on_any_type(tmp_path: Path, mask: np.ndarray, ending: str) -> None:
    scan = folder.scan(make(tmp_path, [mask], ending=ending), threshold=128)
    labels = folder.load(scan.items[0]).labels
    assert (labels == (mask == mask.max())).all() and set(np.unique(labels)) == {0, 1}


def test_masks_of_no_whole_numbers_pages_or_one_hot_say_what_to_do(tmp_path: Path) -> None:
    cases = {
        "float64 values 0 to 0.5; save whole numbers": values(0, 1) / 2,
        "one number per pixel is needed": np.zeros((16, 24, 5), int),
    }
    for number, (message, array) in enumerate(cases.items()):
        with pytest.raises(ValueError, match=f"masks/0.npy: .*{message}"):
            folder.scan(make(tmp_path / str(number), [array], ending=".npy"))
    raw = make(tmp_path / "pages", [values(0, 1)], ending=".tif")
    page = Image.fromarray(values(0, 1))
    page.save(raw / "masks" / "0.tif", save_all=True, append_images=[page, page])
    with pytest.raises(ValueError, match="0.tif: the mask holds 3 pages"):
        folder.scan(raw)


def test_a_mat_file_with_several_arrays_needs_a_key(tmp_path: Path) -> None:
    mask, other = values(1, 2), values(0, 1)
    raw = make(tmp_path, [mask])
    (raw / "masks" / "0.png").unlink()
    scipy.io.savemat(raw / "masks" / "0.mat", {"s": {"first": mask.astype(float), "second": other, "small": other[:3]}})
    with pytest.raises(ValueError, match=r"0.mat: the .mat file holds s.first \(16, 24\), s.second .*mat_key: s.first"):
        folder.scan(raw)
    for key, wanted in (("s.first", mask), ("s.second", other)):
        assert (folder.load(folder.scan(raw, mat_key=key).items[0]).labels == wanted).all()
    with pytest.raises(ValueError, match="no field 'third'; it has: first, second, small"):
        folder.scan(raw, mat_key="s.third")


def test_two_names_and_black_and_white_masks_meet(tmp_path: Path) -> None:
    """The most common fault of all: a list of two names, and masks of 0 and 255 of which 255 would be ignored."""
    masks = [values(0, 255, seed=i) for i in range(20)]
    (make(tmp_path / "raw", masks) / "classes.txt").write_text("background\ncrack\n")
    scan = folder.scan(tmp_path / "raw")
    assert [c.name for c in scan.classes] == ["background", "crack"] and told(scan) == ["binary_mask"]
    assert "crack: 255" in scan.faults[0].fix
    for name, mask in converted(tmp_path / "raw", tmp_path / "out").items():
        assert (mask == (masks[int(name)] == 255)).all()


@pytest.mark.parametrize("value", [3, 255])
def test_a_value_outside_the_table_stops_convert(tmp_path: Path, value: int) -> None:
    masks = [values(0, 1, 2, seed=i) for i in range(20)]
    masks[13] = values(0, 1, value)
    raw = make(tmp_path / "raw", masks)
    with pytest.raises(AuditError, match=rf"\b{value}\b.*images/13.png \(128 pixels\)"):
        converted(raw, tmp_path / "out", classes=["a", "b", "c"])
    mask = converted(raw, tmp_path / "out", classes=["a", "b", "c"], ignore=value)["13"]
    assert ((mask == 255) == (masks[13] == value)).all()


def test_every_value_is_an_object(tmp_path: Path) -> None:
    numbers = np.zeros(SHAPE, np.uint16)
    numbers[1:5, 2:9], numbers[7:9, 2:9], numbers[12:, 20:], numbers[0, 0] = 4000, 12, 7, 65535
    numbers[8, 4] = 7  # an object in two parts
    raw = make(tmp_path, [numbers])
    with pytest.raises(ValueError, match="`instances: true`"):
        folder.scan(raw)
    scan = folder.scan(raw, instances=True, ignore=65535)
    assert [(c.name, c.thing) for c in scan.classes] == [("background", False), ("object", True)]
    decoded = folder.load(scan.items[0])
    assert (np.vectorize(scan.labels.get)(decoded.labels) == np.where(numbers == 65535, 255, numbers > 0)).all()
    assert [row["category"] for row in decoded.instances] == [1, 1, 1]
    for row, number in zip(decoded.instances, (7, 12, 4000), strict=True):
        assert (coco_mask.decode(row["rle"]).astype(bool) == (numbers == number)).all()
    assert [c.name for c in folder.scan(raw, instances=True, classes=["ground", "cell"]).classes] == ["ground", "cell"]


def test_damaged_masks_are_named_by_convert_and_do_not_stop_the_look(tmp_path: Path) -> None:
    raw = make(tmp_path / "raw", [values(0, 1, seed=i) for i in range(20)])
    (raw / "masks" / "3.png").write_bytes((raw / "masks" / "3.png").read_bytes()[:60])
    (raw / "masks" / "4.png").write_bytes(b"")
    with pytest.raises(AuditError) as caught:
        converted(raw, tmp_path / "out")
    findings = [finding for finding in caught.value.findings if finding.severity == "error"]
    assert {finding.kind for finding in findings} == {"unreadable"}
    assert "3.png" in str(findings) and "4.png" in str(findings)
    for path in (raw / "masks").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"masks/0.png: cannot identify image file"):
        folder.scan(raw)


def test_a_mixture_of_colour_and_index_masks_is_found_in_the_file(tmp_path: Path) -> None:
    raw = make(tmp_path, [values(0, 1)] * 120)
    Image.fromarray(np.stack([values(0, 9), values(0, 5, seed=1), values(0)], -1)).save(raw / "masks" / "1.png")
    item = next(item for item in folder.scan(raw).items if item.id == "1")
    with pytest.raises(ValueError, match="the mask is a colour picture, others are not"):
        folder.load(item)


def test_faults_name_no_file_in_what(tmp_path: Path) -> None:
    faults: tuple[Fault, ...] = folder.scan(make(tmp_path, [values(0, 1, 2)])).faults
    assert faults and all(fault.example not in fault.what for fault in faults)
