"""Offline augmentation with 2 processes against 1: `python -m benchmarks.augment`.

Both make the same samples of a generated set, in turns and in fresh processes, start-up of the workers included. Prints the
ratio of the fastest runs, which should be at least 1.7; the files must be byte for byte the same.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from segpipe.shards import ClassInfo, DatasetInfo, Sample, SplitWriter, dataset_digest, encode_mask, write_info

HEIGHT, WIDTH = 256, 320
RUN = """
import sys, time, json
from pathlib import Path
from segpipe.augmentation.offline import augment
if __name__ == "__main__":
    start = time.perf_counter()
    augment(Path(sys.argv[1]), Path(sys.argv[2]), policy=sys.argv[3], copies=2, seed=0, workers=int(sys.argv[4]))
    print(json.dumps(time.perf_counter() - start))
"""


def generate(folder: Path, images: int) -> None:
    """Write a dataset of JPEG images with blobs of six classes."""
    classes = tuple(ClassInfo(name=f"class{i}", colour=(40 * i, 255 - 40 * i, 90)) for i in range(6))
    with SplitWriter(folder, "train") as writer:
        for number in range(images):
            rng = np.random.default_rng(number)
            noise = cv2.GaussianBlur(rng.normal(size=(HEIGHT, WIDTH, 6)).astype(np.float32), (0, 0), 20)
            mask = noise.argmax(2).astype(np.uint8)
            colours = rng.integers(40, 216, (6, 3)).astype(np.float32)
            texture = cv2.GaussianBlur(rng.normal(0, 60, (HEIGHT, WIDTH, 3)).astype(np.float32), (0, 0), 1.5)
            image = np.clip(colours[mask] + texture, 0, 255).astype(np.uint8)
            encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
            writer.write(
                Sample(id=f"{number:05d}", image=encoded, mask=encode_mask(mask), height=HEIGHT, width=WIDTH, group="", source="")
            )
        digest = dataset_digest({"train": writer.close()}, classes)
    info = DatasetInfo(
        name="generated",
        classes=classes,
        ignore_index=255,
        task="semantic",
        dimensions=2,
        splits={"train": images, "val": 0, "test": 0},
        pixels={},
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        provenance={},
        digest=digest,
    )
    write_info(folder, info)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--policy", default="strong")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as root:
        converted = Path(root) / "converted"
        converted.mkdir()
        generate(converted, options.images)
        script = Path(root) / "run.py"
        script.write_text(RUN)
        for _ in range(options.repeats):
            for workers, times in seconds.items():
                out = Path(root) / f"out{workers}"
                command = [sys.executable, str(script), str(converted), str(out), options.policy, str(workers)]
                times.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
        same = all(path.read_bytes() == (Path(root) / "out2" / path.name).read_bytes() for path in (Path(root) / "out1").iterdir())
    one, two = min(seconds[1]), min(seconds[2])
    print(f"{options.images} images {HEIGHT}x{WIDTH}, policy {options.policy}, 2 copies each, {os.cpu_count()} cores")
    print(f"1 process  {one:6.2f} s   {2 * options.images / one:6.0f} samples/s   all runs: {[round(s, 2) for s in seconds[1]]}")
    print(f"2 processes{two:6.2f} s   {2 * options.images / two:6.0f} samples/s   all runs: {[round(s, 2) for s in seconds[2]]}")
    print(f"same files: {same}")
    print(f"ratio {one / two:.2f} (target 1.7)")
    if not same:
        raise SystemExit("the files differ")


if __name__ == "__main__":
    main()
