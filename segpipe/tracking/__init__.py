"""Everything that knows MLflow. A run is found again by what it holds (the model's digest), never by an id kept in a file.

`live.py` follows a training from a process of its own; `registry.py` makes MLflow complete from files alone, whenever it is
called; `gate.py` decides who is champion; `packaging.py` and `portable.py` make the model that loads without this repository.
"""

from segpipe.tracking.live import LiveRun, live_run

__all__ = ["LiveRun", "live_run"]
