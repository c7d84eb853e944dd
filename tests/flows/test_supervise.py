"""Whatever ends a stage, its whole process group ends: also the grandchildren, also when the caller is killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.imports import ROOT

# A child that starts a grandchild, notes the grandchild's pid, and waits for it.
CHILD = "import subprocess, sys; p = subprocess.Popen(['sleep', '300']); open(sys.argv[1], 'w').write(str(p.pid)); p.wait()"


def started(note: Path) -> int:
    for _ in range(200):
        if note.exists() and note.read_text():
            return int(note.read_text())
        time.sleep(0.05)
    raise AssertionError("the grandchild did not start")


def gone(pid: int) -> bool:
    for _ in range(200):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z":
            return True
        time.sleep(0.05)
    return False


def supervise(note: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "flows.supervise", sys.executable, "-c", CHILD, str(note)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE)


def test_a_closed_pipe_ends_the_group(tmp_path: Path) -> None:
    process = supervise(tmp_path / "pid")
    grandchild = started(tmp_path / "pid")
    assert process.stdin
    process.stdin.close()
    assert process.wait(timeout=20) != 0
    assert gone(grandchild)


def test_sigterm_ends_the_group(tmp_path: Path) -> None:
    process = supervise(tmp_path / "pid")
    grandchild = started(tmp_path / "pid")
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) != 0
    assert gone(grandchild)
    assert process.stdin
    process.stdin.close()


def test_a_killed_caller_ends_the_group(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    command = [sys.executable, "-m", "flows.supervise", sys.executable, "-c", CHILD, str(note)]
    caller = f"import subprocess, time; subprocess.Popen({command!r}, stdin=subprocess.PIPE); time.sleep(300)"
    process = subprocess.Popen([sys.executable, "-c", caller], cwd=ROOT)
    grandchild = started(note)
    process.kill()
    process.wait()
    assert gone(grandchild)


@pytest.mark.parametrize("code", [0, 3])
def test_the_exit_code_is_the_commands(code: int) -> None:
    command = [sys.executable, "-m", "flows.supervise", sys.executable, "-c", f"raise SystemExit({code})"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) as process:
        assert process.wait(timeout=30) == code
