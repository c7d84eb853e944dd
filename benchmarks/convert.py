"""Convert with 2 processes against 1, and its peak memory: `python -m benchmarks.convert`.

Both convert the same generated folder of JPEG (or PNG) images and palette PNG masks, in turns and in fresh processes, start-up
of the workers included. Prints the ratio of the fastest runs, which should be at least 1.7, and the largest memory of a run, all
its processes together; the files must be byte for byte the same. `--small` makes 20,000 samples of 64 x 64.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import psutil
from PIL import Image

RUN = """
import sys, time, json
from pathlib import Path
from segpipe.convert import convert
from segpipe.datasets import scenes
if __name__ == "__main__":
    start = time.perf_counter()
    raw = Path(sys.argv[1])
    convert(raw, Path(sys.argv[2]), name="generated", scan=scenes.scan(raw), load=scenes.load, workers=int(sys.argv[3]))
    print(json.dumps(time.perf_counter() - start))
"""


def generate(raw: Path, images: int, *, height: int, width: int, kind: str = "png") -> None:
    """Write a source in the layout of `scenes`, nine tenths of it train: images (`kind`: png, jpg) and PNG masks of six classes."""
    colours = [[40 * i, 255 - 40 * i, 90] for i in range(6)]
    table = [{"name": f"class{i}", "colour": c} for i, c in enumerate(colours)]
    for split in ("train", "val", "test"):
        for room in ("images", "masks"):
            (raw / split / room).mkdir(parents=True)
    (raw / "classes.json").write_text(json.dumps(table))
    for number in range(images):
        rng = np.random.default_rng(number)
        split = ("val", "test")[number % 2] if number % 10 < 2 and number < images // 2 else "train"
        coarse = cv2.resize(rng.normal(size=(6, 8, 6)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
        mask = coarse.argmax(2).astype(np.uint8)
        texture = cv2.resize(rng.normal(0, 30, (height // 4, width // 4, 3)).astype(np.float32), (width, height))
        image = np.clip(np.array(colours, np.float32)[mask] * rng.uniform(0.5, 1, 3) + texture, 0, 255).astype(np.uint8)
        encoded = cv2.imencode(f".{kind}", image)[1].tobytes()  # the layout's names end in .png, but the content decides
        (raw / split / "images" / f"{number:06d}.png").write_bytes(encoded)
        palette = Image.fromarray(mask)
        palette.putpalette([v for c in colours for v in c])
        palette.save(raw / split / "masks" / f"{number:06d}.png")


def measured(command: list[str]) -> tuple[float, float]:
    """Seconds that the command prints, and the peak of the memory of all its processes in MiB (USS: shared pages left out)."""
    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    peak, stopped = [0.0], threading.Event()

    def watch() -> None:
        while not stopped.is_set():
            try:
                family = [process, *process.children(recursive=True)]
                peak[0] = max(peak[0], sum(p.memory_full_info().uss for p in family) / 2**20)
            except psutil.Error:  # a process ended between two looks
                pass
            time.sleep(0.2)

    watcher = threading.Thread(target=watch)
    watcher.start()
    text, _ = process.communicate()
    stopped.set()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed")
    return float(json.loads(text)), peak[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument(
        "--kind", default="jpg", choices=("jpg", "png"), help="photographs are JPEG; PNGs of noise are ten times larger"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--small", action="store_true", help="20,000 samples of 64 x 64")
    options = parser.parse_args()
    images, height, width = (20_000, 64, 64) if options.small else (options.images, 360, 480)
    seconds: dict[int, list[float]] = {1: [], 2: []}
    memory = {1: 0.0, 2: 0.0}
    with tempfile.TemporaryDirectory() as root:
        raw, script = Path(root) / "raw", Path(root) / "run.py"
        generate(raw, images, height=height, width=width, kind=options.kind)
        script.write_text(RUN)
        for _ in range(options.repeats):
            for workers in seconds:
                taken, peak = measured([sys.executable, str(script), str(raw), str(Path(root) / f"out{workers}"), str(workers)])
                seconds[workers].append(taken)
                memory[workers] = max(memory[workers], peak)
        names = sorted(path.relative_to(Path(root) / "out1") for path in (Path(root) / "out1").rglob("*") if path.is_file())
        same = all((Path(root) / "out1" / n).read_bytes() == (Path(root) / "out2" / n).read_bytes() for n in names)
    print(f"{images} {options.kind} images {height}x{width}")
    for workers, times in seconds.items():
        rate, runs = images / min(times), [round(s, 2) for s in times]
        print(f"{workers} processes {min(times):6.2f} s  {rate:5.0f} images/s  peak {memory[workers]:5.0f} MiB  all runs: {runs}")
    print(f"same files: {same}")
    print(f"ratio {min(seconds[1]) / min(seconds[2]):.2f} (target 1.7)")
    if not same:
        raise SystemExit("the files differ")


if __name__ == "__main__":
    main()
