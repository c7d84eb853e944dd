"""200 seeded damages to images and masks of every file type: each gives a finding that names the file, and none an exception."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segpipe.datasets import camvid, folder
from segpipe.items import Converted, Load, Rules, convert_item
from tests.datasets.damages import DAMAGES, Sample, draw, make, truncate

RULES = Rules(labels={0: 0, 1: 1, 2: 2, 255: 255}, class_names=("ground", "disc", "pole"), categories=(0, 1, 2))
SEEDS = {damage: 20 if damage is truncate else 10 for damage in DAMAGES}
LOADS = {"camvid": camvid.load, "folder": folder.load}


def outcome(sample: Sample, load: Load) -> Converted:
    return convert_item(sample.item(), load=load, rules=RULES)


def test_there_are_200_damages() -> None:
    assert sum(SEEDS.values()) == 200


@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
def test_without_damage_nothing_is_found(load: Load, tmp_path: Path) -> None:
    for seed in range(60):
        sample = make(tmp_path, seed)
        done = outcome(sample, load)
        assert not done.faults and done.sample is not None, sample.item()
        assert (np.asarray(Image.open(io.BytesIO(done.sample.mask))) == draw(np.random.default_rng(seed))[1]).all()


# Pillow also warns of some of these files.
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read", "ignore:Metadata Warning")
@pytest.mark.parametrize("load", LOADS.values(), ids=LOADS)
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
def test_damage_gives_a_finding_that_names_the_file(damage: Callable[[Sample], Path], load: Load, tmp_path: Path) -> None:
    for seed in range(SEEDS[damage]):
        sample = make(tmp_path, 1000 * list(DAMAGES).index(damage) + seed)
        path = damage(sample)
        faults = [fault for fault, _ in outcome(sample, load).faults]
        named = [fault for fault in faults if sample.image.name in fault.example or sample.mask.name in fault.example]
        kinds = {fault.kind for fault in named if fault.severity == "error"}
        assert kinds & DAMAGES[damage], f"seed {seed}: {damage.__name__} of {path.name} gives {faults or 'nothing'}"
