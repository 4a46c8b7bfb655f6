"""Networks of other frameworks, exported to NIR by their own exporters, with what they do: a stand-alone file.

    python nir_exporters.py FOLDER

writes ``CASE.nir`` and ``CASE.npz`` (``x`` [steps, *shape], ``spikes`` of the last layer [steps, *shape]) into FOLDER
and one line of JSON a case: its name, or the exception. Weights and decays are dyadic, so that a framework in float32
rounds nothing. It imports numpy, torch, nir and the frameworks, and nothing of snncompile.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

STEPS = 60
Case = tuple[Any, torch.Tensor, torch.Tensor]  # NIR graph, stimulus, spikes


def dyadic(module: nn.Module, seed: int, *, bias: bool = True) -> nn.Module:
    """Weights in quarters, biases in eighths."""
    generator = torch.Generator().manual_seed(seed)
    for name, values in module.named_parameters():
        drawn = torch.randint(-4, 5, values.shape, generator=generator)
        values.data.copy_(drawn / 8 * bias if name.endswith("bias") else drawn / 4)
    return module


def stimulus(*shape: int) -> torch.Tensor:
    """Spikes [steps, 1, *shape]."""
    return torch.randint(0, 2, (STEPS, 1, *shape), generator=torch.Generator().manual_seed(1)).float()


def _spikingjelly(neuron: Callable[[], nn.Module], dt: float = 1e-4) -> Case:
    from spikingjelly.activation_based import functional, layer
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    net = nn.Sequential(
        *(dyadic(layer.Conv2d(2, 4, 3, padding=1), 2), neuron(), layer.AvgPool2d(2), layer.Flatten()),
        *(dyadic(layer.Linear(36, 7), 3), neuron()),
    )
    x = stimulus(2, 6, 6)
    functional.reset_net(net)
    with torch.no_grad():
        spikes = torch.stack([net(one) for one in x])
    functional.reset_net(net)
    return export_to_nir(net, x[0], dt=dt), x, spikes


def spikingjelly_lif() -> Case:
    """LIF whose input is not scaled by the decay: r = tau/dt."""
    from spikingjelly.activation_based import neuron

    return _spikingjelly(lambda: neuron.LIFNode(tau=2.0, decay_input=False, v_reset=0.0))


def spikingjelly_decay_input() -> Case:
    """LIF whose input is: r = 1; it starts at v_reset."""
    from spikingjelly.activation_based import neuron

    return _spikingjelly(lambda: neuron.LIFNode(tau=2.0, decay_input=True, v_reset=-0.25, v_threshold=0.125))


def spikingjelly_if() -> Case:
    """IF: r = 1/dt."""
    from spikingjelly.activation_based import neuron

    return _spikingjelly(lambda: neuron.IFNode(v_reset=0.25), dt=1e-3)


def spikingjelly_cuba() -> Case:
    """LIF with a synaptic current."""
    from spikingjelly.activation_based import neuron

    return _spikingjelly(lambda: neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75, v_reset=0.0))


def _snntorch(first: Callable[[], nn.Module], state: int) -> Case:
    import snntorch
    from snntorch.export_nir import export_to_nir

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = dyadic(nn.Linear(6, 5), 4)
            self.lif1 = first()
            self.fc2 = dyadic(nn.Linear(5, 4), 5)
            self.lif2 = snntorch.Leaky(
                beta=torch.full((4,), 0.5), threshold=torch.full((4,), 0.5), reset_mechanism="zero", reset_delay=False
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states = self.__dict__.setdefault("states", [None, None])
            given = states[0] if states[0] is not None else ()
            spikes, *states[0] = self.lif1(self.fc1(x), *given)
            if state == 2:
                states[0] = [spikes, *states[0]]
            spikes, *states[1] = self.lif2(self.fc2(spikes), *(states[1] or ()))
            return spikes

    net, x = Net(), stimulus(6)
    with torch.no_grad():
        spikes = torch.stack([net(one) for one in x])
    net.__dict__.pop("states")
    return export_to_nir(net, x[0], ignore_dims=[0]), x, spikes


def snntorch_leaky() -> Case:
    """LIF that is reset in the step of its spike."""
    import snntorch

    return _snntorch(
        lambda: snntorch.Leaky(
            beta=torch.full((5,), 0.75), threshold=torch.full((5,), 0.5), reset_mechanism="zero", reset_delay=False
        ),
        1,
    )


def snntorch_synaptic() -> Case:
    """LIF with a synaptic current."""
    import snntorch

    alpha, beta = torch.full((5,), 0.5), torch.full((5,), 0.75)
    return _snntorch(
        lambda: snntorch.Synaptic(
            alpha=alpha, beta=beta, threshold=torch.full((5,), 0.5), reset_mechanism="zero", reset_delay=False
        ),
        1,
    )


def snntorch_recurrent() -> Case:
    """LIF that hears itself a step later: the delay lies in front of its weights, which have a bias."""
    import snntorch

    def cell() -> nn.Module:
        made = snntorch.RLeaky(
            beta=torch.full((5,), 0.5),
            threshold=torch.full((5,), 0.5),
            linear_features=5,
            reset_mechanism="zero",
            reset_delay=False,
        )
        dyadic(made.recurrent, 6)
        return made

    return _snntorch(cell, 2)


def norse_lif() -> Case:
    """LIF of Norse."""
    import norse.torch as norse

    p = norse.LIFBoxParameters(
        tau_mem_inv=torch.full((5,), 512.0), v_th=torch.full((5,), 0.25), v_leak=torch.zeros(5), v_reset=torch.zeros(5)
    )
    net = norse.SequentialState(dyadic(nn.Linear(6, 5), 7), norse.LIFBoxCell(p, dt=2.0**-10))
    x, state, spikes = stimulus(6), None, []
    with torch.no_grad():
        for one in x:
            out, state = net(one, state)
            spikes.append(out)
    return norse.to_nir(net, x[0], dt=2.0**-10), x, torch.stack(spikes)


def sinabs_if() -> Case:
    """IF of sinabs with one spike a step and no floor: soft reset, fires at a tie."""
    import sinabs.layers as sl
    from sinabs.activation import SingleSpike
    from sinabs.nir import to_nir

    net = nn.Sequential(dyadic(nn.Linear(6, 5), 8), sl.IAFSqueeze(batch_size=1, spike_fn=SingleSpike, min_v_mem=None))
    x = stimulus(6)
    with torch.no_grad():
        spikes = net(x.flatten(0, 1)).reshape(STEPS, 1, 5)
    return to_nir(net, x[0]), x, spikes


CASES = (
    *(spikingjelly_lif, spikingjelly_decay_input, spikingjelly_if, spikingjelly_cuba),
    *(snntorch_leaky, snntorch_synaptic, snntorch_recurrent, norse_lif, sinabs_if),
)


def main(folder: Path) -> None:
    """Export every case that the frameworks here can."""
    import nir

    for make in CASES:
        name = make.__name__
        try:
            graph, x, spikes = make()
            nir.write(folder / f"{name}.nir", graph)
        except Exception as error:  # the frameworks' own
            said = (str(error).splitlines() or [""])[0]
            print(json.dumps({"case": name, "failed": f"{type(error).__name__}: {said}"[:200]}))
            continue
        np.savez(folder / f"{name}.npz", x=x[:, 0].numpy(), spikes=spikes[:, 0].numpy().astype(bool))
        print(json.dumps({"case": name, "version": metadata.version(name.partition("_")[0])}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
