"""New training samples of one dataset, on disk: `python -m stages.augment <dataset>`."""

import os
import sys
from pathlib import Path

from segpipe.augmentation.offline import augment
from segpipe.params import read_params


def main() -> None:
    params = read_params()
    if len(sys.argv) != 2 or sys.argv[1] not in params.datasets:
        raise SystemExit(f"usage: python -m stages.augment <dataset>, one of: {', '.join(params.datasets)}")
    name = sys.argv[1]
    report = augment(
        Path("data/converted") / name,
        Path("data/augmented") / name,
        policy=params.augment.policy,
        copies=params.augment.copies,
        seed=params.seed,
        workers=len(os.sched_getaffinity(0)),
    )
    print(f"{name}: {report.samples} augmented samples of {report.parents} training images, policy {report.policy}")
    if not report.samples:
        return
    redrawn = ", ".join(f"{reason} {count}" for reason, count in report.redrawn.items()) or "none"
    print(f"draws thrown away: {redrawn}; samples that fell back to the mirrored image: {len(report.fallbacks)}")
    width = max(len(c) for c in report.balance)
    print(f"{'class':{width}}  before   after   (share of the labelled pixels)")
    for c, share in report.balance.items():
        print(f"{c:{width}}  {share['before']:6.2%}  {share['after']:6.2%}")


if __name__ == "__main__":
    main()
