"""One file per stage, each a `main()` that is run as `python -m stages.<stage> [<key>]` from the folder of params.yaml."""

import os

# Read when torch loads, so it must stand before any stage imports it. OpenMP's threads otherwise spin while they wait for each
# other, and where loader processes or a second stage want the same cores, every operation then waits for the scheduler: on two
# busy cores a training step was measured to take ten times as long. Waiting asleep changes no result.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
