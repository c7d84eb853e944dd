"""The pipeline's graph as DVC has it: `read_graph()` asks `dvc dag`, so it can never differ from dvc.yaml."""

import re
import subprocess
import sys
from pathlib import Path

DVC = [sys.executable, "-m", "dvc"]
_NODE = re.compile(r'^"(?P<name>[^"]+)";$', re.MULTILINE)
_EDGE = re.compile(r'^"(?P<above>[^"]+)" -> "(?P<below>[^"]+)";$', re.MULTILINE)


def read_graph(workspace: Path) -> dict[str, set[str]]:
    """Every stage of `workspace`/dvc.yaml with the stages it waits for, in an order in which they can run.

    Raises:
        ValueError: DVC cannot read dvc.yaml or params.yaml; the message is DVC's own.
    """
    done = subprocess.run([*DVC, "dag", "--dot"], cwd=workspace, capture_output=True, text=True)
    if done.returncode:
        raise ValueError(f"{workspace}: `dvc dag` failed: {done.stderr.strip() or done.stdout.strip()}")
    waits: dict[str, set[str]] = {name: set() for name in _NODE.findall(done.stdout)}
    for above, below in _EDGE.findall(done.stdout):
        waits[below].add(above)
    return sort(waits)


def sort(waits: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same graph with every stage after all that it waits for; equal stages keep their order."""
    ordered: dict[str, set[str]] = {}
    while len(ordered) < len(waits):
        ready = [name for name in waits if name not in ordered and waits[name] <= set(ordered)]
        assert ready, f"a circle among {sorted(set(waits) - set(ordered))}"
        ordered |= {name: waits[name] for name in ready}
    return ordered
