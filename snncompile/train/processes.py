"""Several processes that train one network: one CPU or one accelerator each, with torch's DistributedDataParallel.

A batch is cut into one part a process; each takes the gradient of the mean loss of its part. The step that all of them
make is that of the whole batch::

    g = sum_p n_p g_p / sum_p n_p        n_p: samples in the part of process p

The wrapper adds gradients up, bucket by bucket, while the rest of the backward pass still runs. It is shown the loss
alone (``Backward``), so that a method may come to it by other ways than the network's ``forward``.

Batch norm normalises with the statistics of a process's own part; the running statistics are averaged after each epoch.
Gradients are added in the order of the processes wherever the same number of processes runs, so a training can be
repeated. ``torchrun`` starts the processes and says who is who (RANK, WORLD_SIZE, LOCAL_RANK).
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import parallel

from snncompile.errors import ReadError, ToolError

CPU = torch.device("cpu")
_met: list[int] = []  # how many processes this one has met, once it has
TOGETHER = "training together"


class Processes:
    """This process among all: ``rank`` of ``count``; alone unless ``joined``."""

    def __init__(self, rank: int = 0, count: int = 1, device: torch.device = CPU) -> None:
        self.rank, self.count, self.device = rank, count, device
        self.share = 1.0
        """Samples of this process's part of the batch, as a share of the mean part."""

    @classmethod
    def joined(cls, device: str = "cpu") -> Processes:
        """Join the processes that the environment speaks of. Raises ReadError for a device that is not there."""
        count = _number("WORLD_SIZE", 1)
        rank, local = _number("RANK", 0), _number("LOCAL_RANK", 0)
        if not rank < count:  # it would train for hours, and say and write nothing
            remedy = "start several processes with torchrun; to train alone, unset RANK and WORLD_SIZE"
            raise ReadError(f"{rank} is none of {count} processes", where="RANK", why="WORLD_SIZE", remedy=remedy)
        place = _device(device, local)
        if count > 1 and not distributed.is_initialized():
            try:
                distributed.init_process_group("nccl" if place.type == "cuda" else "gloo", rank=rank, world_size=count)
            except (ValueError, RuntimeError) as error:
                why, remedy = str(error).splitlines()[0][:160], "start them with torchrun"
                raise ToolError("the processes cannot meet", where=TOGETHER, why=why, remedy=remedy) from error
            _met.append(count)
        return cls(rank, count, place)

    @property
    def parts(self) -> float:
        """How many parts of this size make the batch: what turns a sum over the part into one that is shared."""
        return self.count / self.share

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def part(self, chosen: Any) -> Any:
        """This process's part of the samples of a batch: every ``count``-th, which differ in size by one at most."""
        own = chosen[self.rank :: self.count]
        self.share = len(own) * self.count / len(chosen)
        return own

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Replace every tensor of reals by its mean over the processes."""
        if self.count == 1:
            return
        for tensor in tensors:
            if tensor.is_floating_point():
                _added(tensor)
                tensor.div_(self.count)

    def sums(self, values: Sequence[float]) -> list[float]:
        """The sum over the processes of each number."""
        if self.count == 1:
            return list(values)
        added = torch.tensor(values, dtype=torch.float64, device=self.device)
        _added(added)
        return [float(value) for value in added]

    def norm(self, own: Tensor) -> float:
        """The Euclidean norm over the whole batch of what every process has of its own part, each part in its share."""
        if self.count == 1:
            return float(own.norm())
        (squares,) = self.sums([(float(own.double().norm()) * self.share / self.count) ** 2])
        return math.sqrt(squares)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            _added(torch.zeros((), device=self.device))


class _Loss(nn.Module):
    """A network, and its loss as the wrapper wants it: something that a ``forward`` gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        # the wrapper looks for parameters that a step did not use, and complains at every start if it finds none
        self.unused = nn.Parameter(next(network.parameters()).detach().new_zeros(()))

    def forward(self, loss: Tensor) -> Tensor:
        return loss


class Backward:
    """The backward pass of one of several processes; after it every parameter has the gradient of the whole batch."""

    def __init__(self, network: object, processes: Processes) -> None:
        self.network, self.processes = network, processes
        self._wrapper: parallel.DistributedDataParallel | None = None
        self._lost: RuntimeError | None = None

    def __call__(self, loss: Tensor) -> None:
        """The gradients of a loss, the mean over this process's part. Raises ToolError where a process is gone."""
        if self.processes.count == 1:
            loss.backward()  # type: ignore[no-untyped-call]
            return
        try:
            self._wrapped()(loss).backward()
        except RuntimeError as error:
            if self._lost is None:
                raise
            raise _gone(self._lost) from error

    def _wrapped(self) -> parallel.DistributedDataParallel:
        """The wrapper, made when network and device are settled. All processes have the same weights by then, from one
        seed or one file.

        Buckets stay as they are (``find_unused_parameters``): made anew after the first step, sums would go in another
        order in a training that is resumed.
        """
        if self._wrapper is None:
            assert isinstance(self.network, nn.Module)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)  # its successor sends them once
                self._wrapper = parallel.DistributedDataParallel(
                    _Loss(self.network), broadcast_buffers=False, find_unused_parameters=True, init_sync=False
                )
            self._wrapper.register_comm_hook(self, lambda own, bucket: own._added(bucket))
        return self._wrapper

    def _added(self, bucket: Any) -> torch.futures.Future[Tensor]:
        """Begin to add up one bucket, each part in its share."""
        part = bucket.buffer().mul_(self.processes.share / self.processes.count)
        try:
            begun: torch.futures.Future[list[Tensor]] = distributed.all_reduce(part, async_op=True).get_future()
        except RuntimeError as error:
            self._lost = error
            raise
        added: torch.futures.Future[Tensor] = begun.then(self._arrived)
        return added

    def _arrived(self, sums: torch.futures.Future[list[Tensor]]) -> Tensor:
        try:
            return sums.value()[0]
        except RuntimeError as error:
            self._lost = error
            raise


def leave() -> None:
    """Say goodbye to the others, where there are any."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def end(code: int) -> None:
    """End this process, if it has met others: run what is registered for the end, and do not take the interpreter down.

    A thread of torch that lets go of ``Backward``'s callbacks meanwhile would find no lock to take, and abort a process
    whose work is done. Waiting for such threads might take for ever where another process is gone.
    """
    if not _met:
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def _added(tensor: Tensor) -> None:
    """Replace a tensor by its sum over the processes. Raises ToolError where one of them is gone."""
    try:
        distributed.all_reduce(tensor)
    except RuntimeError as error:
        raise _gone(error) from error


def _gone(error: RuntimeError) -> ToolError:
    why = str(error).splitlines()[0][:120]
    remedy = "go on with --resume"
    return ToolError("another process has stopped", where=TOGETHER, why=why, remedy=remedy)


def _number(variable: str, default: int) -> int:
    text = os.environ.get(variable, "")
    if text and not text.isdecimal():
        raise ReadError(f"{text!r} is no number", where=variable, remedy="start several processes with torchrun")
    return int(text) if text else default


def _device(name: str, local: int) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        if not torch.cuda.is_available():
            raise ReadError("torch finds no accelerator", where="--device cuda", remedy="say --device cpu")
        if local >= (there := torch.cuda.device_count()):
            why = f"LOCAL_RANK {local}"
            raise ReadError(f"torch finds {there} accelerators", where="--device cuda", why=why, remedy="start fewer")
        torch.cuda.set_device(local)
        return torch.device("cuda", local)
    return CPU
