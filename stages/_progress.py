"""How a training shows itself on a terminal: a bar that moves with every step, and one line per epoch in any case."""

from collections.abc import Mapping

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from segpipe.training.epoch import Progress


class TrainingProgress:
    """The callbacks of `fit`. The bar appears only where standard output is a terminal."""

    def __init__(self, *, epochs: int, minutes: float | None) -> None:
        self._epochs, self._seconds = epochs, None if minutes is None else 60 * minutes
        self._console = Console(highlight=False, soft_wrap=True)
        self._bar = Bar(
            TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
            BarColumn(),
            TextColumn("{task.fields[rate]:.1f} images/s, {task.fields[left]} left"),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._bar.add_task("train", total=1.0, epoch=1, epochs=epochs, rate=0.0, left="?")

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def on_step(self, p: Progress) -> None:
        done = (p.epoch - 1 + p.step / p.steps) / p.epochs
        left = p.seconds_left
        if self._seconds is not None:
            left = min(left, max(0.0, self._seconds - p.seconds))
            done = max(done, min(1.0, p.seconds / self._seconds))
        self._bar.update(self._task, completed=done, epoch=p.epoch, rate=p.images_per_second, left=duration(left))

    def on_epoch(self, row: Mapping[str, float]) -> None:
        self._console.print(
            f"epoch {row['epoch']}/{self._epochs}  train loss {row['train_loss']:.4f}  val loss {row['val_loss']:.4f}"
            f"  val mIoU {row['val_miou']:.4f}  {row['images_per_second']:.1f} images/s  {row['seconds']:.1f} s"
        )

    def report(self, message: str) -> None:
        self._console.print(message, markup=False)


def duration(seconds: float) -> str:
    """Seconds as people say them: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
