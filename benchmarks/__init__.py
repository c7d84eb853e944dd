"""Each file compares ours with a peer and prints a ratio: `python -m benchmarks.<name>`."""

import os

# As in `stages`: read when torch loads, so it stands before any benchmark imports it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
