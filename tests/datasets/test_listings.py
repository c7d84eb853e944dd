"""What every format reads of a folder: the names of its files, and lists and tables that are text."""

from pathlib import Path

import pytest

from segpipe.datasets import folder, volumes, yolo
from segpipe.datasets.blocks import naming, texts


def test_a_text_in_another_encoding_is_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_bytes("\ufeffStraße\r\nÄcker\r\n".encode())
    assert texts.read(path) == "Straße\nÄcker\n"
    path.write_bytes("Straße\n".encode("cp1252"))
    with pytest.raises(ValueError, match=rf"{path}: byte 4 is not UTF-8. Save the file as UTF-8 text."):
        texts.read(path)


@pytest.mark.parametrize("name", ["classes.yaml", "train.txt"])
def test_the_users_own_lists(tmp_path: Path, name: str) -> None:
    for room in ("images", "masks"):
        (tmp_path / room).mkdir()
        (tmp_path / room / "1.png").write_bytes(b"")
    (tmp_path / name).write_bytes(b"Stra\xdfe")
    with pytest.raises(ValueError, match=rf"{tmp_path / name}: byte 4 is not UTF-8"):
        folder.scan(tmp_path)


def test_yolo_and_volumes_say_which_list(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes(b"stra\xdfe")
    with pytest.raises(ValueError, match="classes.txt: byte 4 is not UTF-8"):
        yolo.scan(tmp_path)
    (tmp_path / "a.npy").write_bytes(b"")
    (tmp_path / "a_seg.npy").write_bytes(b"")
    with pytest.raises(ValueError, match=rf"{tmp_path}/a_seg.npy: no classes: no label volume can be read"):
        volumes.scan(tmp_path)


def test_a_link_to_the_folder_itself_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "deep").mkdir(parents=True)
    (tmp_path / "elsewhere" / "deep" / "2.png").touch()
    raw = tmp_path / "raw"
    (raw / "images").mkdir(parents=True)
    (raw / "images" / "1.png").touch()
    (raw / "images" / "loop").symlink_to(raw)
    (raw / "images" / "more").symlink_to(tmp_path / "elsewhere")
    assert naming.list_files(raw) == ["images/1.png", "images/more/deep/2.png"]


def test_a_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    try:
        (tmp_path / "\udcff.png").touch()
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(ValueError, match=r"the name '\\udcff.png' is not UTF-8. Rename the file."):
        naming.list_files(tmp_path)
