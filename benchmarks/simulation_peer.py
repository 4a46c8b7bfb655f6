"""A network of ``benchmarks/simulation.py`` in plain torch, SpikingJelly, snnTorch or onnxruntime, in a process of its
own or not.

Imports torch and NumPy and nothing of ours, so that any environment with a peer runs it. As a program it reads a line
of JSON (``file``: an ``.npz`` of the network and what it is shown; ``peer``; ``threads``), answers what the read-out
says in the mean, then answers every further line with the CPU and wall seconds of one run.
"""

import json
import sys
import time

import numpy as np
import torch
from torch.nn import functional


def plain(currents, layer):
    """Spikes [steps, samples, ...] of currents: v <- beta v + x, fires above the threshold, back to 0."""
    potential = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        potential = potential * 0.5 + current
        fired = (potential > layer["threshold"]).float()
        potential = potential * (1.0 - fired)
        spikes.append(fired)
    return torch.stack(spikes)


def spikingjelly(currents, layer):
    """The same neuron as SpikingJelly's multi-step LIF node, torch backend."""
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import neuron

    if "node" not in layer:
        above = float(np.nextafter(np.float32(layer["threshold"]), np.float32(np.inf)))  # it fires at its threshold
        node = neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=above, v_reset=0.0)
        node.step_mode, node.backend = "m", "torch"
        layer["node"] = node.eval()
    jelly.reset_net(layer["node"])
    return layer["node"](currents)


def spikingjelly_fed_back(currents, layer, weight):
    """The same layer with SpikingJelly's node, a call a step, which hears itself one step late."""
    from spikingjelly.activation_based import functional as jelly
    from spikingjelly.activation_based import neuron

    if "node" not in layer:
        above = float(np.nextafter(np.float32(layer["threshold"]), np.float32(np.inf)))  # it fires at its threshold
        layer["node"] = neuron.LIFNode(tau=2.0, decay_input=False, v_threshold=above, v_reset=0.0).eval()
    jelly.reset_net(layer["node"])
    fired = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        fired = layer["node"](torch.addmm(current, fired, weight.T))
        spikes.append(fired)
    return torch.stack(spikes)


def snntorch(currents, layer):
    """The same neuron as snnTorch's ``Leaky``, a call a step."""
    import snntorch as snn

    if "node" not in layer:
        layer["node"] = snn.Leaky(
            beta=0.5, threshold=float(layer["threshold"]), reset_mechanism="zero", reset_delay=False
        )
    potential = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        fired, potential = layer["node"](current, potential)
        spikes.append(fired)
    return torch.stack(spikes)


NEURONS = {"torch": plain, "spikingjelly": spikingjelly, "snntorch": snntorch}


class Network:
    """Layers of synapses and neurons; time is merged into the batch wherever a layer does not feed itself."""

    def __init__(self, layers, weights, peer="torch"):
        self.layers = [dict(layer) for layer in layers]
        self.weights = {name: torch.tensor(array.astype(np.float32)) for name, array in weights.items()}
        self.neurons, self.peer = NEURONS[peer], peer
        self.rates = {}

    @torch.inference_mode()
    def __call__(self, shown):
        """``shown`` [steps, samples, ...], or [1, samples, ...]: the same at every step -> [samples, classes]."""
        values = {"input": shown}
        for layer in self.layers:
            own = [branch for branch in layer["branches"] if branch["source"] == layer["name"]]
            arriving = [
                self.synapses(values[branch["source"]], branch) for branch in layer["branches"] if branch not in own
            ]
            current = arriving[0]
            for other in arriving[1:]:
                current = current + other
            if len(current) == 1:
                current = current.expand(layer["steps"], *current.shape[1:])
            if not layer["threshold"]:
                return current.sum(0)
            values[layer["name"]] = self.recurrent(current, layer, own[0]) if own else self.neurons(current, layer)
        raise ValueError("no read-out")

    def recurrent(self, currents, layer, branch):
        """A layer that feeds itself, one step late, goes step by step."""
        weight = self.weights[branch["weight"]]
        if self.peer == "spikingjelly":
            return spikingjelly_fed_back(currents, layer, weight)
        potential = torch.zeros_like(currents[0])
        fired = torch.zeros_like(currents[0])
        spikes = []
        for current in currents:
            potential = potential * 0.5 + torch.addmm(current, fired, weight.T)
            fired = (potential > layer["threshold"]).float()
            potential = potential * (1.0 - fired)
            spikes.append(fired)
        return torch.stack(spikes)

    def synapses(self, spikes, branch):
        """What one branch carries, [steps, samples, ...]."""
        steps, samples = spikes.shape[:2]
        x = spikes.flatten(0, 1)
        if branch["pool"]:
            x = functional.avg_pool2d(x, 2) * 4.0
        match branch["kind"]:
            case "identity":
                x = x * float(branch["factor"])
            case "dense":
                x = x.flatten(1) @ self.weights[branch["weight"]].T
            case "conv":
                weight = self.weights[branch["weight"]]
                x = functional.conv2d(
                    x, weight, stride=branch["stride"], padding=branch["padding"], groups=branch["groups"]
                )
        return x.view(steps, samples, *x.shape[1:])


def main():
    """Answer line for line."""
    told = json.loads(sys.stdin.readline())
    torch.set_num_threads(told["threads"])
    with np.load(told["file"], allow_pickle=False) as content:
        arrays = dict(content)
    shown, layers = arrays.pop("shown"), json.loads(str(arrays.pop("layers")))
    if told["peer"] == "onnxruntime":
        from simulation_onnx import Network as Exchanged

        network = Exchanged(layers, arrays, shown, told["threads"])
    else:
        network, shown = Network(layers, arrays, told["peer"]), torch.tensor(shown)
    answer = network(shown)
    print(json.dumps({"answer": float(abs(answer).mean())}), flush=True)
    for _ in sys.stdin:
        cpu, wall = time.process_time(), time.perf_counter()
        network(shown)
        print(json.dumps([time.process_time() - cpu, time.perf_counter() - wall]), flush=True)


if __name__ == "__main__":
    main()
