"""Where a run takes place: the device, its precision, and the lease that keeps two runs from sharing one GPU by accident.

A lease is a lock on one file per GPU in a folder that all users of the machine see. The system drops it when the process ends,
however it ends.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from lightning_fabric import Fabric
from torch import Tensor, nn

LEASES = Path(tempfile.gettempdir()) / "segpipe-leases"
POLL_SECONDS = 1.0
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}


@contextmanager
def training_device(requested: str, *, report: Callable[[str], None], folder: Path = LEASES) -> Iterator[torch.device]:
    """The device to train on, held until the block ends: `auto`, `cpu`, `cuda` (any free GPU) or `cuda:<number>`.

    `auto` is any free GPU, or the CPU where there is none. Where all GPUs are leased this waits, and reports so. The CPU needs
    no lease.

    Raises:
        ValueError: no such device on this machine.
    """
    count = torch.cuda.device_count()
    if requested == "cpu" or (requested == "auto" and not count):
        yield torch.device("cpu")
        return
    known = ["auto", "cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if requested not in known:
        raise ValueError(f"device: {requested!r} is not on this machine. There are: {', '.join(known)}.")
    numbers = [int(requested[5:])] if requested.startswith("cuda:") else list(range(count))
    # By the hardware's own name: numbers change with CUDA_VISIBLE_DEVICES.
    names = [f"cuda-{torch.cuda.get_device_properties(i).uuid}" for i in numbers]
    with lease(names, report=report, folder=folder) as index:
        yield torch.device("cuda", numbers[index])


@contextmanager
def lease(
    names: Sequence[str], *, report: Callable[[str], None], folder: Path = LEASES, poll: float = POLL_SECONDS
) -> Iterator[int]:
    """Hold the first free one of `names`: yields its index, after waiting, and reporting so, if all are held."""
    folder.mkdir(parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o777 != 0o777:
        folder.chmod(0o1777)
    locks = [FileLock(folder / f"{name}.lock", timeout=0, mode=0o666) for name in names]
    waited = False
    with ExitStack() as held:
        while True:
            for index, lock in enumerate(locks):
                try:
                    held.enter_context(lock.acquire())
                except Timeout:
                    continue
                yield index
                return
            if not waited:
                report(f"waiting for a free GPU: {', '.join(names)} leased by other runs (see {folder})")
                waited = True
            time.sleep(poll)


def choose_precision(requested: str, device: torch.device) -> str:
    """`fp32`, `bf16` or `fp16`; `auto` is bf16 where the device computes in it, else fp32.

    Weights, losses and optimiser stay float32 in any case; bf16 and fp16 are autocast.

    Raises:
        ValueError: fp16 without a GPU, or an unknown name.
    """
    if requested == "auto":
        return "bf16" if _has_bf16(device) else "fp32"
    if requested not in PRECISIONS:
        raise ValueError(f"precision: {requested!r} is unknown. Choices: auto, {', '.join(PRECISIONS)}.")
    if requested == "fp16" and device.type != "cuda":
        raise ValueError(f"precision: fp16 needs a GPU, and this run is on {device}. Use bf16, fp32 or auto.")
    return requested


def _has_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def use_channels_last(device: torch.device, precision: str) -> bool:
    """Whether the channels-last memory layout is the faster one: on CPUs always, on GPUs with half precision."""
    return device.type == "cpu" or precision != "fp32"


class Float32Conv2d(nn.Conv2d):
    """Computes in float32 also under a CPU's autocast, and answers in autocast's precision then; see `mend`."""

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        with torch.autocast("cpu", enabled=False):
            out = super().forward(input.float())
        return out.to(torch.get_autocast_dtype("cpu"))


def mend(model: nn.Module) -> None:
    """Make the network's grouped convolutions with dilation learn on CPUs in bfloat16.

    oneDNN 3.13 (torch 2.15) answers wrong gradients of their weights in bfloat16 and channels-last, from maps of about 20 x 20 on:
    not a rounding error but other numbers, some of them not finite. In float32 they are right, and twice as fast.
    """
    for module in model.modules():
        if type(module) is nn.Conv2d and module.groups > 1 and max(module.dilation) > 1:
            module.__class__ = Float32Conv2d  # adds no state, so that the module stays what it is


def make_fabric(device: torch.device, *, precision: str, processes: int = 1, nodes: int = 1) -> Fabric:
    """Lightning Fabric for one process, or for one of `processes` per node that `torchrun` started.

    With several processes, process r of a node trains on GPU r.
    """
    if processes == 1 and nodes == 1:
        devices = 1 if device.type == "cpu" else [device.index or 0]
        fabric = Fabric(accelerator=device.type, devices=devices, precision=PRECISIONS[precision])
    else:
        fabric = Fabric(
            accelerator=device.type, devices=processes, num_nodes=nodes, strategy="ddp", precision=PRECISIONS[precision]
        )
    fabric.launch()
    return fabric


def peak_memory_mb(device: torch.device) -> float:
    """The most memory held so far in MiB: torch's on a GPU, this process's resident memory on a CPU (loaders not counted)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
