"""`make zoo` on a made-up CamVid: data, plan, training, evaluation and table; what is known is kept, and what fails is said."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import zoo
from segpipe import components
from segpipe.params import read_params

SIZE = (36, 48)


def make_camvid(folder: Path) -> Path:
    """SegNet's layout: stripes of three classes and a void corner, under noise."""
    for split, count in {"train": 6, "val": 2, "test": 3}.items():
        lines = []
        for kind in (split, f"{split}annot"):
            (folder / kind).mkdir(parents=True)
        for number in range(count):
            rng = np.random.default_rng([number, count])
            labels = np.repeat(np.arange(3, dtype=np.uint8), 20)[:, None].repeat(80, 1)
            labels = np.roll(labels, int(rng.integers(60)), 0)
            name = f"{split}{number}_{number}"
            Image.fromarray((labels[..., None] * 80 + rng.integers(0, 60, (60, 80, 3))).astype(np.uint8)).save(
                folder / split / f"{name}.png"
            )
            labels[:5, :5] = 11
            Image.fromarray(labels).save(folder / f"{split}annot" / f"{name}.png")
            lines.append(f"/SegNet/CamVid/{split}/{name}.png /SegNet/CamVid/{split}annot/{name}.png")
        (folder / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_the_preset_has_every_network_once_with_one_recipe() -> None:
    params = read_params(zoo.PRESET)
    assert list(params.experiments) == [row.architecture for row in params.experiments.values()]
    assert sorted(params.experiments) == components.names("architectures")
    document = yaml.safe_load(zoo.PRESET.read_text())["experiments"]
    assert all(row.keys() == {"dataset", "architecture", "options", "loss", "epochs"} for row in document.values())
    assert {(row["dataset"], row["loss"]) for row in document.values()} == {(zoo.DATASET, "cross_entropy")}


def test_the_page_has_the_marks_for_the_table(tmp_path: Path) -> None:
    page = zoo.ROOT / "docs" / "zoo.md"
    copy = tmp_path / "zoo.md"
    copy.write_text(page.read_text())
    zoo.insert(copy, "| a |\n")
    zoo.insert(copy, "| b |\n")
    assert copy.read_text().count("| b |") == 1 and "| a |" not in copy.read_text()
    assert copy.read_text().partition(zoo.BEGIN)[0] == page.read_text().partition(zoo.BEGIN)[0]
    assert copy.read_text().partition(zoo.END)[2] == page.read_text().partition(zoo.END)[2]
    copy.write_text("no marks")
    with pytest.raises(SystemExit, match="zoo.md: has no <!-- zoo:begin -->"):
        zoo.insert(copy, "")


@pytest.mark.slow
def test_the_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    preset = yaml.safe_load(zoo.PRESET.read_text())
    row = preset["experiments"]["unet"]
    preset["train"] |= {"size": list(SIZE), "batch_size": 3, "workers": 0, "device": "cpu"}
    preset["experiments"] = {
        "broken": row,
        "unet": row | {"options": row["options"] | {"width": 4}},
    }
    (tmp_path / "preset.yaml").write_text(yaml.safe_dump(preset, sort_keys=False))
    monkeypatch.setattr(zoo, "PRESET", tmp_path / "preset.yaml")
    logged = zoo.logged
    monkeypatch.setattr(zoo, "logged", lambda z, f, module, *a: logged(z, f, "nowhere" if f.name == "broken" else module, *a))
    page = tmp_path / "page.md"
    page.write_text(f"before\n{zoo.BEGIN}\nold\n{zoo.END}\nafter\n")
    source, folder = make_camvid(tmp_path / "CamVid"), tmp_path / "zoo"
    arguments = ["--source", str(source), "--folder", str(folder), "--minutes", "0.002", "--threads", "1", "--write", str(page)]
    assert zoo.main(arguments) == 1, "one network fails"
    printed = capsys.readouterr().out
    assert "broken: failed: " in printed and "No module named nowhere" in printed
    result = json.loads((folder / "unet" / "result.json").read_text())
    assert 0 <= result["low"] <= result["miou"] <= result["high"] <= 1 and 1 <= result["epochs"] <= result["planned"]
    assert read_params(folder / "unet" / "params.yaml").experiments["unet"].train.epochs == result["planned"]
    lines = page.read_text().splitlines()
    assert lines[0] == "before" and lines[-1] == "after" and "old" not in lines
    assert "camvid at 48 x 36, 6 train, 2 val, 3 test images; 0.002 minutes of training each, 1 thread of cpu" in lines[2]
    rows = [line for line in lines if line.startswith("|")]
    assert [line.count("|") for line in rows] == [len(zoo.HEADER) + 1] * 4
    assert rows[2].startswith("| unet | padding same, norm batch, width 4, dropout 0.0 | 0.12 M |")
    assert rows[3].startswith("| broken | ") and "| failed: " in rows[3] and "No module named nowhere" in rows[3]

    known = (folder / "unet" / "models" / "unet" / "model.safetensors").stat().st_mtime_ns
    assert zoo.main([*arguments, "--only", "unet"]) == 0, "only the chosen ones decide the status"
    assert "%, known" in capsys.readouterr().out
    assert (folder / "unet" / "models" / "unet" / "model.safetensors").stat().st_mtime_ns == known
