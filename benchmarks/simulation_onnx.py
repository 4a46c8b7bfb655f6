"""A network of ``benchmarks/simulation.py`` as an ONNX graph in float32, run by onnxruntime.

Time is merged into the batch before every layer of weights, as in ``simulation_peer``; neurons are written out step by
step, and so is a layer that feeds itself. Imports NumPy, onnx and onnxruntime and nothing of ours.
"""

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


class Network:
    """``Network(layers, weights, threads)(shown)``: shown [steps, samples, ...] -> [samples, classes]."""

    def __init__(self, layers, weights, shown, threads):
        self.nodes, self.constants, self.count = [], [], 0
        self.weights = {name: array.astype(np.float32) for name, array in weights.items()}
        self.samples = shown.shape[1]
        values = {"input": ("shown", shown.shape[0], shown.shape[2:])}
        for layer in layers:
            own = [branch for branch in layer["branches"] if branch["source"] == layer["name"]]
            parts = [self.synapses(values[b["source"]], b) for b in layer["branches"] if b not in own]
            current, steps, shape = parts[0]
            for other, _, _ in parts[1:]:
                current = self.op("Add", current, other)
            if not layer["threshold"]:
                kept = self.op("Reshape", current, self.constant([steps, self.samples, *shape]))
                last = self.op("ReduceSum", kept, self.constant([0]), keepdims=0)
                if steps == 1:
                    last = self.op("Mul", last, self.number(layer["steps"]))
                break
            values[layer["name"]] = self.neurons(current, steps, shape, layer, own)
        self.session = self.made(shown, last, threads)

    def made(self, shown, last, threads):
        given = helper.make_tensor_value_info("shown", TensorProto.FLOAT, shown.shape)
        found = helper.make_tensor_value_info(last, TensorProto.FLOAT, None)
        graph = helper.make_graph(self.nodes, "network", [given], [found], self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        return onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])

    def __call__(self, shown):
        return self.session.run(None, {"shown": shown})[0]

    def op(self, kind, *inputs, outputs=1, **attributes):
        names = [f"v{self.count + place}" for place in range(outputs)]
        self.count += outputs
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def constant(self, values, kind=np.int64):
        self.constants.append(numpy_helper.from_array(np.array(values, dtype=kind), f"c{len(self.constants)}"))
        return self.constants[-1].name

    def number(self, value):
        return self.constant(value, np.float32)

    def synapses(self, given, branch):
        """What one branch carries, [steps * samples, ...], and its steps and shape."""
        name, steps, shape = given
        x = self.op("Reshape", name, self.constant([-1, *shape]))
        if branch["pool"]:
            x = self.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
            x, shape = self.op("Mul", x, self.number(4.0)), (shape[0], shape[1] // 2, shape[2] // 2)
        if branch["kind"] == "identity":
            return self.op("Mul", x, self.number(branch["factor"])), steps, shape
        weight = self.weights[branch["weight"]]
        if branch["kind"] == "dense":
            x = self.op("Flatten", x, axis=1)
            return self.op("MatMul", x, self.constant(weight.T, np.float32)), steps, (len(weight),)
        stride, padding = branch["stride"], branch["padding"]
        x = self.op("Conv", x, self.constant(weight, np.float32), strides=[stride] * 2, pads=[padding] * 4)
        size = [(side + 2 * padding - weight.shape[2]) // stride + 1 for side in shape[1:]]
        return x, steps, (len(weight), *size)

    def neurons(self, current, steps, shape, layer, own):
        """Spikes [steps, samples, ...] of currents; ``own``: the branch through which a layer feeds itself."""
        whole = self.op("Reshape", current, self.constant([steps, self.samples, *shape]))
        parts = [whole] if steps == 1 else self.op("Split", whole, outputs=steps, axis=0, num_outputs=steps)
        still, potential, fired, spikes = steps == 1, None, None, []
        half, one, threshold = self.number(0.5), self.number(1.0), self.number(layer["threshold"])
        back = self.constant(self.weights[own[0]["weight"]].T, np.float32) if own else ""
        for step in range(layer["steps"]):
            x = parts[0] if still else parts[step]
            if own and fired is not None:
                x = self.op("Add", x, self.op("MatMul", fired, back))
            potential = x if potential is None else self.op("Add", self.op("Mul", potential, half), x)
            fired = self.op("Cast", self.op("Greater", potential, threshold), to=TensorProto.FLOAT)
            potential = self.op("Mul", potential, self.op("Sub", one, fired))
            spikes.append(fired)
        return self.op("Concat", *spikes, axis=0), layer["steps"], shape
