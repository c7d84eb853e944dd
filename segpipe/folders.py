"""A finished folder takes the place of an old one, so that a kill at any moment leaves a whole one."""

import os
import shutil
from pathlib import Path


def put(new: Path, place: Path) -> None:
    """Move the folder `new` to `place`, on the same disk. What was there is moved aside first and removed last."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)
