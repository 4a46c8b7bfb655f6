"""The other side of ``throughput.py``: the same network in SpikingJelly, for an interpreter that has it.

Stands alone: torch and spikingjelly, nothing of ours. Reads a line of JSON that says network, weights and batch, says
the loss of the first step, and then, for every line ``go``, how many seconds some steps of training took.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron, surrogate
from torch import Tensor, nn


def main() -> None:
    """Build, answer, end with the input."""
    told = json.loads(sys.stdin.readline())
    torch.set_num_threads(told["threads"])
    torch.manual_seed(0)
    content = torch.load(told["file"], weights_only=True)
    network = Spiking(told["layers"], told["steps"], static=told["static"])
    with torch.no_grad():
        for own, given in zip(network.parameters(), content["weights"], strict=True):
            own.copy_(given)
    optimiser = torch.optim.Adam(network.parameters(), lr=told["rate"])
    x, labels = content["x"], content["labels"]

    def step() -> float:
        outputs = network(x)
        loss = tet(outputs, labels, told["mix"], told["phi"])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        functional.reset_net(network)
        return float(loss.detach())

    print(json.dumps(step()), flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            step()
        print(json.dumps(time.perf_counter() - start), flush=True)


def tet(outputs: Tensor, labels: Tensor, mix: float, phi: float) -> Tensor:
    """TET's loss of outputs [T, B, C]."""
    steps = outputs.shape[0]
    each = nn.functional.cross_entropy(outputs.flatten(0, 1), labels.repeat(steps))
    return (1.0 - mix) * each + mix * (outputs - phi).square().mean()


class Spiking(nn.Module):
    """Multi-step mode. What is the same at every step is computed once, as ours does."""

    def __init__(self, layers: list[list[Any]], steps: int, *, static: bool) -> None:
        super().__init__()
        self.steps, self.static = steps, static
        mode = "s" if static else "m"
        self.first = nn.Sequential()
        self.rest = nn.Sequential()
        part = self.first
        for kind, *numbers in layers:
            if kind == "lif":
                lif = neuron.LIFNode(  # on a CPU it computes with torch, there is no other backend
                    tau=2.0,
                    decay_input=False,
                    v_threshold=1.0,
                    v_reset=0.0,
                    surrogate_function=surrogate.PiecewiseQuadratic(alpha=1.0),
                    detach_reset=False,
                    step_mode="m",
                )
                part, mode = self.rest, "m"
                part.append(lif)
            elif kind == "conv":
                inside, outside, kernel, stride = numbers
                part.append(layer.Conv2d(inside, outside, kernel, stride, kernel // 2, step_mode=mode))
            elif kind == "norm2":
                part.append(layer.BatchNorm2d(*numbers, step_mode=mode))
            elif kind == "norm1":
                part.append(layer.BatchNorm1d(*numbers, step_mode=mode))
            elif kind == "pool":
                part.append(layer.AvgPool2d(*numbers, step_mode=mode))
            elif kind == "flatten":
                part.append(layer.Flatten(step_mode=mode))
            else:
                part.append(layer.Linear(*numbers, step_mode=mode))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs [T, B, C] of images [B, ...] or frames [T, B, ...]."""
        first = self.first(x)
        if self.static:
            first = first.unsqueeze(0).expand(self.steps, *first.shape)
        return self.rest(first)


if __name__ == "__main__":
    main()
