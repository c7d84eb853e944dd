"""Follows a training in MLflow while it runs, from a process of its own: nothing that happens there can hold up the training.

The other process (`writer.py`) pays for importing MLflow and waits for the server; this side only writes lines into a pipe.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

FINISH_SECONDS = 20.0


class LiveRun:
    """One training's line to MLflow. When the line breaks it goes silent, after telling `report` once why."""

    def __init__(self, process: "subprocess.Popen[bytes]", report: Callable[[str], None]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process, self._report = process, report
        self._stdin, self._stdout = process.stdin, process.stdout
        self._open = True
        # A writer that waits for its server stops reading; a full pipe must then refuse, not block.
        os.set_blocking(self._stdin.fileno(), False)

    def log_epoch(self, row: Mapping[str, Any]) -> None:
        """The numbers of one epoch, at step `row["epoch"]`. An epoch that the run already has (resumed training) adds nothing."""
        self._send({"epoch": dict(row)})

    def finish(self, model_digest: str) -> None:
        """The training is complete and its weights have this sha256; the run can be found by it from now on."""
        self._send({"finish": model_digest})

    def _send(self, message: dict[str, Any]) -> None:
        self._listen()
        if not self._open:
            return
        line = json.dumps(message, default=_plain).encode() + b"\n"
        try:
            written = os.write(self._stdin.fileno(), line)
        except BrokenPipeError:
            self._listen()
            self._give_up("its process ended")
        except BlockingIOError:
            self._give_up("its process no longer takes anything in")
        else:
            if written < len(line):
                self._give_up("its process no longer takes anything in")

    def _listen(self) -> None:
        if self._open and select.select([self._stdout], [], [], 0)[0]:
            said = self._stdout.readline().decode().strip()
            if said:
                self._give_up(said)

    def _give_up(self, reason: str) -> None:
        if self._open:
            self._open = False
            self._report(f"MLflow: not following this training live: {reason}")

    def close(self) -> None:
        """Let the writer end what it has, for a bounded time; it marks a run that was not finished as failed."""
        try:
            self._stdin.close()
            self._process.wait(FINISH_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._give_up(f"its process did not end within {FINISH_SECONDS:.0f} s")
        self._listen()
        self._stdout.close()


def _plain(value: Any) -> Any:
    """NumPy and torch numbers as Python numbers, anything else as text."""
    return value.item() if hasattr(value, "item") else str(value)


@contextmanager
def live_run(
    *,
    uri: str,
    experiment: str,
    name: str,
    fingerprint: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    report: Callable[[str], None] = lambda message: None,
) -> Iterator[LiveRun]:
    """Follow one training in the MLflow at `uri`; a dead or dying server is reported once and otherwise changes nothing.

    Args:
        uri: tracking address of MLflow.
        experiment: the MLflow experiment to appear in.
        name: the row of `experiments` in params.yaml; the run's name.
        fingerprint: equal for trainings that must give the same model: a resumed training goes on in the run it left behind.
        params: may be nested; logged once, flattened with dots.
        tags: set on the run beside the fingerprint.
        report: takes the one sentence about why nothing is logged.
    """
    start = {"uri": uri, "experiment": experiment, "name": name, "fingerprint": fingerprint}
    process = subprocess.Popen(
        [sys.executable, "-m", "segpipe.tracking.writer"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    )
    run = LiveRun(process, report)
    try:
        run._send({**start, "params": dict(params), "tags": dict(tags)})
        yield run
    finally:
        run.close()
