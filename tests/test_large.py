"""The large networks of the papers, with few channels and small images: through the ladder, and on real Lava.

``benchmarks/large.py`` does the same with all of their channels (without Lava) and with an eighth (with it).
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from snncompile.compile import Compiled, compile_graph, fold, shown
from snncompile.frontends.torch import read_module
from snncompile.ir.ops import Neuron, Readout
from snncompile.passes.legalise import legalise
from snncompile.passes.place import chips_of, place
from snncompile.recipe import Recipe
from snncompile.target import Target
from snncompile.train.recording import record
from snncompile.verify import Ladder
from tests.drawing import Array
from tests.on_lava import Device, prove

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "large.py"
LOIHI = Target.load("loihi")
LAST_POOL = {"AP8": "AP4", "AP4": "AP2"}
"""Of images half as wide: what is left before the last layer is pooled whole."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_large", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def small(script: ModuleType, name: str) -> Recipe:
    """A 32nd of the channels, images of 16 pixels, three steps."""
    tables = script.narrower(Recipe.load(name), 32, least=4).to_dict()
    network = tables["network"]
    layers = [LAST_POOL.get(layer, layer) for layer in network["architecture"].split("-")]
    network["input"] = [network["input"][0], 16, 16]
    network["architecture"] = "-".join(layers)
    tables["tet"]["steps"] = 3
    return Recipe.from_dict(tables, name)


@pytest.fixture(scope="module")
def compiled(script: ModuleType) -> list[tuple[Compiled, dict[str, Array]]]:
    """Each network, its ladder climbed up to the fast interpreter, and the data it was climbed on."""
    done = []
    for name in script.NAMES:
        recipe = small(script, name)
        seen = script.inputs(recipe, 4, Path("nowhere"))
        network = script.untrained(recipe, seen)
        graph = read_module(network)
        stimulus = {key: np.asarray(one, np.float64) for key, one in shown(graph, seen.x, recipe.steps).items()}
        one = compile_graph(graph, LOIHI, stimulus)
        rungs = list(Ladder(one, seen.x, seen.y, record(network, seen.x)).rungs(with_lava=False))
        verdicts = [rung.verdict for rung in rungs]
        assert verdicts[:1] + verdicts[3:6] == ["recorded", "measured", "bit-equal", "bit-equal"], name
        assert set(verdicts[1:3]) <= {"same", "explained"}, name
        done.append((one, {key: array[:2] for key, array in stimulus.items()}))
    return done


def test_the_ladder_holds(compiled: list[tuple[Compiled, dict[str, Array]]]) -> None:
    """The fixture climbs; what is proven is worth something only where layers fire."""
    for one, stimulus in compiled:
        device = Device.of(one, stimulus)
        silent = [name for name, spikes in device.expected.spikes.items() if not spikes.any()]
        assert len(silent) <= len(device.expected.spikes) // 4


def test_resnet19_with_all_its_channels_places_in_seconds(script: ModuleType) -> None:
    """Weights play no part but for their bits. 1,376,512 neurons; by hand, 512 -> 512 3x3 kernels of eight bits are
    4608 taps of 65 words, so a core holds 8 of their channels: 4608 * 2 words.
    """
    recipe = Recipe.load("cifar10-resnet19-tet")
    network = script.untrained(recipe, script.inputs(recipe, 2, Path("nowhere")))
    legal = legalise(fold(read_module(network))[0], LOIHI).graph
    begun = time.process_time()
    passed = place(legal, LOIHI)
    assert time.process_time() - begun < 10
    ops = [op for op in passed.graph.nodes.values() if isinstance(op, Neuron | Readout)]
    assert sum(part.count for op in ops for part in op.cores) == 1_376_512 + 10
    assert chips_of(passed.graph, LOIHI).board.name == "kapoho-point"
    last = passed.graph.nodes["block8_lif2"]
    assert isinstance(last, Neuron)
    assert {part.channels for part in last.cores} == {8}


@pytest.mark.lava
def test_they_are_bit_equal_on_lava(compiled: list[tuple[Compiled, dict[str, Array]]]) -> None:
    proven = prove([Device.of(one, stimulus) for one, stimulus in compiled], LOIHI)
    assert [one.different for one in proven] == [0, 0, 0]
    assert all(one.spikes > 100 for one in proven)
    assert all(one.compared > 10_000 for one in proven)
