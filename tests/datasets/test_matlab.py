"""The reader of MATLAB 5 files: equal to SciPy's on sound files, a ValueError on every damaged one."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from segpipe.datasets.blocks import matlab

TYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float64", "float32"]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_equal_to_scipy(tmp_path: Path, dtype: str, compressed: bool) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "a.mat"
    content = {
        "first": "a text",
        "LabelMap": rng.integers(0, 120, (13, 7)).astype(dtype),
        "GT": {"cell": np.array([[1, "x"]], object), "Segmentation": rng.integers(0, 120, (5, 3)).astype(dtype), "one": 3},
    }
    scipy.io.savemat(path, content, do_compression=compressed)
    read = scipy.io.loadmat(path)
    for ours, theirs in (
        (matlab.labels(path, "LabelMap"), read["LabelMap"]),
        (matlab.labels(path, "GT", "Segmentation"), read["GT"]["Segmentation"][0, 0]),
        (matlab.labels(path, "GT", "one"), read["GT"]["one"][0, 0]),
    ):
        assert ours.shape == theirs.shape and (ours == theirs).all()
        assert ours.dtype == (np.int32 if theirs.dtype.kind == "f" else theirs.dtype)


@pytest.mark.parametrize(
    ("content", "names", "words"),
    [
        ({"a": 1, "b": 2}, ("LabelMap",), "no variable 'LabelMap'; there are: a, b"),
        ({"GT": {"a": 1}}, ("GT", "b"), "'GT' has no field 'b'; it has: a"),
        ({"GT": 1}, ("GT", "b"), "'GT' is no structure"),
        ({"GT": "text"}, ("GT",), "'GT' is no array of real numbers"),
        ({"GT": np.array([[1 + 2j]])}, ("GT",), "'GT' is no array of real numbers"),
        ({"GT": np.array([[0.5]])}, ("GT",), "GT holds values that are no whole numbers"),
        ({"GT": np.array([[np.nan, 1]])}, ("GT",), "GT holds values that are no whole numbers"),
    ],
)
def test_what_is_not_there_is_said(tmp_path: Path, content: dict, names: tuple[str, ...], words: str) -> None:
    scipy.io.savemat(tmp_path / "a.mat", content)
    with pytest.raises(ValueError, match=words):
        matlab.labels(tmp_path / "a.mat", *names)


def test_version_7_3_is_refused_with_what_to_do(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "a.mat").write_bytes(header + bytes(384) + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(ValueError, match="save"):
        matlab.labels(tmp_path / "a.mat", "LabelMap")


def test_damaged_files_raise_value_error(tmp_path: Path) -> None:
    """Cut, overwritten and zeroed files, with half of the damage in the head, where the lengths are; SciPy crashes on some."""
    rng = random.Random(0)
    labels = np.repeat(np.arange(60, dtype=np.uint16), 80).reshape(60, 80)
    path, wrong, read = tmp_path / "a.mat", 0, 0
    for compressed in (False, True):
        buffer = io.BytesIO()
        scipy.io.savemat(buffer, {"GT": {"text": "x", "Segmentation": labels}}, do_compression=compressed)
        sound = buffer.getvalue()
        for turn in range(400):
            data = bytearray(sound)
            if turn % 4 == 0:
                data = data[: rng.randrange(len(data))]
            elif turn % 4 == 1:
                start = rng.randrange(len(data))
                data[start : start + 40] = bytes(min(40, len(data) - start))
            else:
                for _ in range(rng.randint(1, 6)):
                    data[rng.randrange(124, 420 if turn % 4 == 2 else len(data)) % len(data)] = rng.randrange(256)
            path.write_bytes(data)
            try:
                array = matlab.labels(path, "GT", "Segmentation")
                read += 1
                assert array.size <= 10 * labels.size
            except ValueError:
                wrong += 1
    assert wrong > 400 and read > 40, "damage to the values of an uncompressed array cannot be seen"
