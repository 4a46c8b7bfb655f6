"""The estimate of `place` against published compile logs: where it is exact, where it errs and by how much."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "placement.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_placement", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("network", "words", "cores"),
    [
        ("mnist", [12544, 2688, 256], [3, 1, 1]),
        ("oxford", [5400, 8192], [2, 2]),
        ("pilotnet_snn", [81, 864, 1296, 2160, 2880, 6720, 1300, 150], [19, 7, 2, 2, 1, 7, 1, 1]),
        ("pilotnet_sdnn", [108, 864, 1296, 2592, 2880, 7464, 1500, 150], [19, 7, 2, 2, 1, 7, 1, 1]),
        (
            "yolo_kp",
            [81, 576, 1728, 6336, 12672, 13824, 13824, 10752, 13824, 2560],
            [197, 99, 50, 25, 50, 16, 32, 13, 32, 3],
        ),
    ],
)
def test_estimates_of_networks_whose_compile_logs_are_published(
    script: ModuleType, network: str, words: list[int], cores: list[int]
) -> None:
    (one,) = (candidate for candidate in script.NETWORKS if candidate.name == network)
    rows = script.rows(one)
    assert [row.words for row in rows] == words
    assert [row.cores for row in rows] == cores
    for row in rows:
        assert row.axons_in in (row.published.axons_in, row.published.axons_in - 1)  # a tile at a border has two


def test_the_error_that_is_stated(script: ModuleType) -> None:
    errors = [row.error for network in script.NETWORKS for row in script.rows(network)]
    assert sum(error == 0 for error in errors) == 22
    assert len(errors) == 31
    assert min(errors) > -0.21
    assert max(errors) <= 0.5
    assert sum(map(abs, errors)) / len(errors) < 0.06
