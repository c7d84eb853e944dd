"""New training samples of one dataset, on disk: `python -m stages.augment <dataset>`."""

import os
import sys
from pathlib import Path

from segpipe.augmentation.offline import augment
from segpipe.params import read_params
from segpipe.shards import read_info


def main() -> None:
    params = read_params()
    if len(sys.argv) != 2 or sys.argv[1] not in params.datasets:
        raise SystemExit(f"usage: python -m stages.augment <dataset>, one of: {', '.join(params.datasets)}")
    name = sys.argv[1]
    converted = Path("data/converted") / name
    copies = params.augment.copies if params.augment.policy != "none" else 0
    if copies and read_info(converted).dimensions != 2:
        raise SystemExit(
            f"{converted}: holds volumes, which are not augmented and on which the networks do not train. Set in params.yaml"
            f" datasets.{name}.slices: 0 (the axis), so that each slice becomes a sample."
        )
    report = augment(
        converted,
        Path("data/augmented") / name,
        policy=params.augment.policy,
        copies=copies,
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
