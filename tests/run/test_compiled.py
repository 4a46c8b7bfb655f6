"""The compiled engine against the definition: every instruction set of this processor, any number of threads."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.ir.ops import Neuron, Readout
from snncompile.run import cpu, integer
from snncompile.run.cpu import Simulator
from snncompile.run.trace import first_divergence
from tests.run.random_networks import network, sheet

KERNELS = (*cpu.KERNELS, "numpy")


def check(source: Random, *, loops: bool) -> None:
    """All kernels on one network: spikes, potentials, counts."""
    target = sheet(source)
    case = network(source, target, loops=loops)
    expected = integer.run(case.graph, case.stimulus, target)
    every = case.graph.names(Neuron, Readout)
    with pytest.MonkeyPatch.context() as patch:
        for kernels, products in [(kernels, products) for kernels in KERNELS for products in (None, 0.0, inf)]:
            patch.setenv(cpu.KERNELS_VARIABLE, kernels)
            if cpu.KERNELS:
                patch.setattr("snncompile.run.compiled.PRODUCTS", products)
            found = Simulator(case.graph, target, threads=source.randint(1, 3)).run(case.stimulus)
            different = first_divergence(found, expected, every)
            assert different is None, f"{kernels}: {different}\n{case}"
            assert found.potentials.keys() == expected.potentials.keys()
            assert found.meta["spikes"] == {name: int(array.sum()) for name, array in expected.spikes.items()}


@given(st.randoms(use_true_random=False))
def test_layer_after_layer(source: Random) -> None:
    check(source, loops=False)


@given(st.randoms(use_true_random=False))
def test_step_after_step(source: Random) -> None:
    check(source, loops=True)
