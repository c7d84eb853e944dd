"""Runs one command in a process group of its own, and ends the whole group when asked to, or when its own parent is gone.

`python -m flows.supervise COMMAND...`: a stage is DVC, a shell, Python and loader workers; signalling DVC alone leaves a trainer
running. The flow holds the other end of this process's standard input: however the flow dies, kill -9 included, that pipe
closes, and the group is ended.
"""

import os
import signal
import subprocess
import sys
import threading
import time

GRACE_SECONDS = 10.0


def main() -> int:
    child = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL, start_new_session=True)

    def end(*_: object) -> None:
        threading.Thread(target=_end_group, args=(child,), daemon=True).start()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)

    def watch() -> None:
        while os.read(0, 1):  # returns nothing once the other end is closed
            pass
        end()

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    _signal_group(child.pid, signal.SIGKILL)  # whatever the command left behind
    return code if code >= 0 else 128 - code


def _end_group(child: subprocess.Popen[bytes]) -> None:
    _signal_group(child.pid, signal.SIGTERM)
    deadline = time.monotonic() + GRACE_SECONDS
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.1)
    _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        pass  # every process of the group has ended already


if __name__ == "__main__":
    raise SystemExit(main())
