"""How a download shows itself: a bar with size, speed and time left on a terminal, and a line at every tenth anywhere else."""

import time
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn


class TransferProgress:
    """The callbacks of `download`, for one download at a time."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._file = ""
        self._task = TaskID(0)
        self._done = self._start = self._told = 0
        self._began = 0.0

    def __enter__(self) -> "TransferProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def tell(self, sentence: str) -> None:
        self._console.print(sentence, markup=False)

    def progress(self, file: str, done: int, total: int | None) -> None:
        """`done` bytes of `file` are there. One that is new, or begins again, starts a new clock: its speed is that of the rest."""
        if file != self._file or done < self._done:
            if file == self._file:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(file, total=total, completed=done)
            self._file, self._start, self._told, self._began = file, done, _tenth(done, total), time.monotonic()
        self._done = done
        if self._console.is_terminal:
            self._bar.update(self._task, completed=done, total=total)
        elif (tenth := _tenth(done, total)) > self._told:
            self._told = tenth
            self._console.print(self._line(file, done, total), markup=False)

    def _line(self, file: str, done: int, total: int | None) -> str:
        rate = (done - self._start) / max(time.monotonic() - self._began, 1e-3)
        line = f"{file}: {done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB ({100 * done // total} %)" if total else " MB")
        left = f", {timedelta(seconds=round((total - done) / rate))} left" if total and rate and done < total else ""
        return f"{line}, {rate / 1e6:.1f} MB/s{left}"


def _tenth(done: int, total: int | None) -> int:
    """How many tenths are done; of a file of unknown size, how many times 100 MB."""
    return 10 * done // total if total else done // 10**8
