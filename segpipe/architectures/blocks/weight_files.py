"""Files of published weights: fetched once, verified, read without pickle.

torchvision publishes its ImageNet weights as pickles. timm publishes the same tensors as safetensors, a JSON header and raw numbers
that cannot run code; those are taken here. They stay in a folder of the user's; a machine without internet needs them put there.
"""

import hashlib
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

IMAGENET = "imagenet"
SUFFIX = ".safetensors"
TIMEOUT = (15.0, 60.0)
"""Seconds to connect, and between two pieces of data."""
CHUNK = 2**20

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Published:
    """A repository of the hub whose `model.safetensors` holds the weights; that file's sha256 where it is known."""

    repository: str
    sha256: str | None = None
    revision: str = "main"

    @property
    def filename(self) -> str:
        return self.repository.rpartition("/")[2] + SUFFIX


PUBLISHED = {
    "resnet18": Published("timm/resnet18.tv_in1k", "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81"),
    "resnet50": Published("timm/resnet50.tv_in1k", "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888"),
    "resnet101": Published("timm/resnet101.tv_in1k"),
    "vgg16": Published("timm/vgg16.tv_in1k", "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8"),
}
"""torchvision's first ImageNet weights (`IMAGENET1K_V1`), by the names of our trunks; the sha256 are those that the hub shows."""


@dataclass(frozen=True, kw_only=True)
class Hub:
    """Where published weights come from, and the folder in which they stay."""

    address: str = "https://huggingface.co"
    folder: Path = Path("~/.cache/segpipe/weights")
    files: Mapping[str, Published] = field(default_factory=lambda: PUBLISHED)

    def url(self, name: str) -> str:
        return f"{self.address}/{self.files[name].repository}/resolve/{self.files[name].revision}/model.safetensors"

    def path(self, name: str) -> Path:
        return self.folder.expanduser() / self.files[name].filename


HUB = Hub()


class WeightFile:
    """An open safetensors file: `shapes` by name, and `tensor(name)`, read when it is asked for."""

    def __init__(self, path: Path, handle: Any) -> None:
        self.path = path
        self.shapes: Shapes = {name: tuple(handle.get_slice(name).get_shape()) for name in handle.keys()}  # noqa: SIM118
        self.tensor: Callable[[str], Tensor] = handle.get_tensor


@contextmanager
def opened(weights: str, *, name: str, hub: Hub) -> Iterator[WeightFile]:
    """The file that the option `weights` means for the trunk `name`: `imagenet`, which is fetched if it is not there, or a path.

    Raises:
        ValueError: `weights` is neither, there is no such file, it cannot be fetched, or it is no whole safetensors file.
    """
    check(weights)
    path = _fetched(name, hub) if weights == IMAGENET else Path(weights).expanduser()
    if not path.is_file():
        raise ValueError(f"weights: {path}: no such file")
    with _reading(path, f"weights: {path}", ": delete it, and it is fetched again" if weights == IMAGENET else "") as file:
        yield file


def check(weights: object) -> None:
    """Raise ValueError unless `weights` is None, `imagenet`, or the name of a safetensors file."""
    if weights is None or weights == IMAGENET or (isinstance(weights, str) and weights.endswith(SUFFIX)):
        return
    raise ValueError(f"weights: {weights!r}. Choices: {IMAGENET}, the path of a {SUFFIX} file, or none.")


@contextmanager
def _reading(path: Path, where: str, advice: str) -> Iterator[WeightFile]:
    from safetensors import SafetensorError, safe_open

    try:
        handle = safe_open(path, framework="pt")  # checks that the header is sound and that the file is as long as it says
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{where}: no whole safetensors file ({error}){advice}") from None
    with handle:
        yield WeightFile(path, handle)


def _fetched(name: str, hub: Hub) -> Path:
    """The path of the weights of `name`, which are fetched first if they are not there."""
    from filelock import FileLock

    path = hub.path(name)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):  # the processes of one training ask for it at the same time
            if not path.is_file():
                _download(name, hub, path)
    except OSError as error:
        raise ValueError(f"weights: {path} cannot be written: {error.strerror or error}") from None
    return path


def _download(name: str, hub: Hub, path: Path) -> None:
    """Write `path` whole and verified, or not at all."""
    import requests

    url, expected, digest = hub.url(name), hub.files[name].sha256, hashlib.sha256()
    advice = f": fetch {url} in another way and put it at {path}"
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            with requests.get(url, stream=True, timeout=TIMEOUT, headers={"User-Agent": "segpipe"}) as answer:
                answer.raise_for_status()
                with open(part, "wb") as file:
                    for block in answer.iter_content(CHUNK):
                        file.write(block)
                        digest.update(block)
                    file.flush()
                    os.fsync(file.fileno())
        except requests.HTTPError as error:
            raise ValueError(f"weights: the hub answered {error.response.status_code}{advice}") from None
        except requests.RequestException as error:
            raise ValueError(f"weights: no connection to the hub, or a broken one ({type(error).__name__}){advice}") from None
        with _reading(part, "weights: the hub's answer", advice):
            pass
        if expected is not None and digest.hexdigest() != expected:
            raise ValueError(f"weights: the hub's file has the sha256 {digest.hexdigest()}, should be {expected}{advice}")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
