"""What ``show`` prints of the choice between relays and delays: where a convolution cannot delay, the cheaper of a
relay population and of the matrix that it is, by the costs of the sheet.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from snncompile.cli import main
from snncompile.target import Target
from tests.tiny import checkpoint

RELAY = """\
node           op       shape  carries  weights  phase  cores  reads
-------------  -------  -----  -------  -------  -----  -----  -------------------------
input          Input    1x8x8  fixed
conv1          Conv     2x4x4  analog        18                input@1
lif1           Neuron   2x4x4  spike                 1         conv1
block1_conv1   Conv     3x2x2  analog        54                lif1@1
block1_lif1    Neuron   3x2x2  spike                 2         block1_conv1
block1_conv2   Conv     3x2x2  analog        81                block1_lif1@1
block1_skip    Conv     3x2x2  analog         6                lif1_relay@1
block1_lif2    Neuron   3x2x2  spike                 3         block1_conv2, block1_skip
fc1            Dense    10     analog       120                block1_lif2@1
readout        Readout  10     analog                4         fc1
output         Output   10     analog                          readout
lif1_relay_in  Scale    2x4x4  analog         1                lif1@1
lif1_relay     Neuron   2x4x4  spike                 2         lif1_relay_in

balance: block1_skip: lif1_relay holds for 1 step what the machine cannot delay, for 42 neurons and words; \
a matrix would add 124
place: 5 of 120 cores, board oheo-gulch
"""
MATRIX = """\
node              op       shape  carries  weights  phase  cores  reads
----------------  -------  -----  -------  -------  -----  -----  ------------------------------
input             Input    1x8x8  fixed
conv1             Conv     2x4x4  analog        18                input@1
lif1              Neuron   2x4x4  spike                 1         conv1
block1_conv1      Conv     3x2x2  analog        54                lif1@1
block1_lif1       Neuron   3x2x2  spike                 2         block1_conv1
block1_conv2      Conv     3x2x2  analog        81                block1_lif1@1
block1_skip       Dense    12     analog       384                lif1@2
fc1               Dense    10     analog       120                block1_lif2@1
readout           Readout  10     analog                4         fc1
output            Output   10     analog                          readout
block1_skip_form  Flatten  3x2x2  analog                          block1_skip
block1_lif2       Neuron   3x2x2  spike                 3         block1_conv2, block1_skip_form

balance: block1_skip: written out as a matrix of 28 words more, which delays; relays would add 34
place: 4 of 120 cores, board oheo-gulch
"""


@pytest.fixture(scope="module")
def skipping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual block whose skip is a convolution, which arrives a step early on a machine."""
    return checkpoint(tmp_path_factory.mktemp("skipping") / "net.pt", "2C3S2-Res(3C3S2-3C3)-10FC")


def sheet(folder: Path, word_bits: int) -> Path:
    """Loihi, with synaptic words of another width: a word holds more synapses of a matrix, and few of a kernel."""
    text = Target.load("loihi").sheet.path.read_text(encoding="utf-8")
    assert text.count("word_bits = { value = 64,") == 1
    path = folder / "chip.toml"
    path.write_text(text.replace("word_bits = { value = 64,", f"word_bits = {{ value = {word_bits},"))
    return path


@pytest.mark.parametrize(("word_bits", "expected"), [(64, RELAY), (512, MATRIX)])
def test_show_prints_the_choice_and_what_the_other_would_cost(
    word_bits: int, expected: str, skipping: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """32 neurons behind the skip's source, 12 in front of its target, 20 bits a synapse: a relay is 32 neurons and
    32 x 20 bits, a matrix 32 rows of 12 x 20 bits less the kernel's. The dearer words are, the dearer is the matrix.
    """
    target = sheet(tmp_path, word_bits)
    assert main(["show", str(skipping), "--level", "timed", "--target", str(target), "-q"]) == 0
    said = capfd.readouterr().out
    assert said.split("\n\n", 1)[1] == expected


def test_the_choice_changes_no_spike(skipping: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = []
    for word_bits in (64, 512):
        words = ["simulate", str(skipping), "--target", str(sheet(tmp_path, word_bits)), "--data", "digits:test:20"]
        assert main([*words, "-q", "--format", "json"]) == 0
        told = json.loads(capfd.readouterr().out)
        found.append({"answers": told["answers"], **{n: told["spikes"][n] for n in ("lif1", "block1_lif2")}})
    assert found[0] == found[1]
    assert found[0]["block1_lif2"] > 0


def test_a_bundle_tells_its_choice(skipping: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["export", str(skipping), "--target", str(sheet(tmp_path, 512)), "-o", str(out), "--no-verify", "-q"]
    assert main(words) == 0
    capfd.readouterr()
    assert main(["show", str(out), "-q"]) == 0
    note = "block1_skip: written out as a matrix of 28 words more, which delays; relays would add 34"
    assert note in capfd.readouterr().out
