"""Worker processes that do not outlive the process they work for."""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """End this worker process when the one that started it is gone: killed outright, that one cannot tell its workers to stop."""
    parent = multiprocessing.parent_process()
    assert parent is not None, "no worker process"

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
