"""The catalogue of machines: pinned figures, every figure with its source, refusals that name the line."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from snncompile import sheet as sheets
from snncompile.cost_model import CostModel, cost_models
from snncompile.errors import SheetError
from snncompile.target import (
    Bias,
    Board,
    Core,
    Current,
    Delay,
    Energy,
    Potential,
    Target,
    Weight,
    machines,
)

SHEETS = sorted(Path(sheets.catalogue("targets")).glob("*.toml"))


def figures(table: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    """Every leaf of a sheet, found without the reader under test."""
    found: list[tuple[str, object]] = []
    for name, value in table.items():
        if isinstance(value, dict) and "value" not in value and "status" not in value:
            found += figures(value, f"{prefix}{name}.")
        else:
            found.append((prefix + name, value))
    return found


@pytest.mark.parametrize("path", SHEETS, ids=lambda path: path.stem)
def test_every_figure_of_the_catalogue_has_a_source(path: Path) -> None:
    leaves = figures(tomllib.loads(path.read_text(encoding="utf-8")))
    assert leaves
    for key, value in leaves:
        if isinstance(value, dict):
            assert len(value["source"]) > 20, key
            assert value.get("basis", "unavailable" if "status" in value else "") != "", key
        else:
            assert key.partition(".")[0] in ("target", "cost_model"), key
            assert isinstance(value, str), key


def test_catalogue() -> None:
    assert {"loihi", "loihi1", "onnx"} <= set(machines())
    assert cost_models() == [
        *("horowitz45", "horowitz45-fp16", "horowitz45-int8", "horowitz45-memory"),
        *("seneca", "spinnaker2-2019", "truenorth-2014", "truenorth-2015"),
    ]
    for name in machines():
        assert Target.load(name).name == name
    for name in cost_models():
        assert CostModel.load(name).name == name


def test_loihi() -> None:
    loihi = Target.load("loihi")
    assert loihi.interpreter == "lava"
    assert loihi.weight == Weight(least=-256, most=254, step=2)
    assert loihi.sum_most == 131071 == 2**23 // 2**6 - 1
    assert loihi.current == Current(bits=24, overflow="wrap")
    assert loihi.potential == Potential(bits=24, overflow="saturate", fraction_bits=6)
    assert (loihi.decay.bits, loihi.decay.rounding) == (12, "toward-zero")
    assert (loihi.threshold.least, loihi.threshold.most) == (0, 131071)
    assert loihi.bias == Bias(mantissa_least=-4096, mantissa_most=4095, exponent_most=7)
    assert (loihi.neuron.fires, loihi.neuron.reset, loihi.neuron.per) == (">", "zero", "population")
    assert not loihi.neuron.soft_reset
    assert not loihi.neuron.initial_potential
    assert (loihi.spike.input_bits, loihi.spike.graded, loihi.spike.message_bits) == (8, True, 24)
    assert loihi.spike.most_message == 2**23 - 1
    assert loihi.synapse_latency == 1
    assert loihi.delay == Delay(dense=62, one_to_one=62, convolution=0)
    assert loihi.core == Core(
        4095, synaptic_words=12000, word_bits=64, axons_in=16000, axons_out=16000, groups=8, kernel_axons="layer"
    )
    assert loihi.boards == (Board("oheo-gulch", 1), Board("kapoho-point", 8), Board("hala-point", 1152))
    assert loihi.most_cores == 120 * 1152
    assert loihi.chip_cores == 120
    assert loihi.energy == Energy(None, None, None, None, None, None)


def test_loihi1_differs_where_the_chip_does() -> None:
    loihi1 = Target.load("loihi1")
    assert loihi1.weight == Weight(least=-256, most=254, step=2)
    assert loihi1.sum_most == 32767
    assert loihi1.bias == Bias(mantissa_least=-4095, mantissa_most=4095, exponent_most=7)
    assert loihi1.threshold.least == 1
    assert (loihi1.spike.input_bits, loihi1.spike.graded, loihi1.spike.message_bits) == (1, False, 0)
    assert loihi1.spike.most_message == 0
    assert loihi1.delay == Delay(dense=6, one_to_one=6, convolution=0)
    assert loihi1.core == Core(
        1024, synaptic_words=16384, word_bits=64, axons_in=4096, axons_out=4096, groups=8, kernel_axons="position"
    )
    assert loihi1.boards == (Board("kapoho-bay", 2), Board("nahuku", 32), Board("pohoiki-springs", 768))
    assert loihi1.chip_cores == 128
    assert loihi1.energy == Energy(23.6, 81.0, 52.0, 1.7, 3.0, 4.0)
    assert loihi1.sheet.figure("energy.synaptic_operation").basis == "pre-silicon simulation"


def test_horowitz45() -> None:
    model = CostModel.load("horowitz45")
    assert (model.ac, model.mac, model.precision) == (0.9, 4.6, "fp32")
    assert model.sheet.figure("cost_model.mac").unit == "pJ"
    assert "arithmetic only" in model.scope


def test_citation_names_the_line_that_holds_the_figure() -> None:
    for key in ("core.neurons", "weight.step", "energy.hop_north_south"):
        cited = re.fullmatch(r"targets/loihi\.toml:(\d+), (\S+)", Target.load("loihi").cite(key))
        assert cited
        assert cited[2] == key
        line = sheets.find("targets", "loihi").read_text().splitlines()[int(cited[1]) - 1]
        assert line.startswith(key.partition(".")[2] + " = ")


@pytest.fixture
def mychip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mychip.toml"
    path.write_text(sheets.find("targets", "loihi").read_text())
    return path


def test_a_chip_of_ones_own(mychip: Path) -> None:
    mychip.write_text(mychip.read_text().replace("value = 4095, unit", "value = 100, unit"))
    chip = Target.load("./mychip.toml")
    assert chip.core.neurons == 100
    assert chip.cite("core.neurons").startswith("./mychip.toml:")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("neurons = {", "neuron = {", r"mychip\.toml:\d+, core\.neuron: unknown key; did you mean neurons\?"),
        ("[core]", "[cores]", r"mychip\.toml:\d+, cores: unknown key; did you mean core"),
        ("value = 4095, unit", "value = 4095.5, unit", "core.neurons: expected an integer, found 4095.5"),
        ("value = 4095, unit", "value = true, unit", "core.neurons: expected an integer, found True"),
        ("value = 4095, unit", "value = 0, unit", "core.neurons: must be positive, is 0"),
        ("value = 62, unit", "value = -1, unit", "delay.dense: must not be negative, is -1"),
        ('value = "saturate"', 'value = "explode"', "potential.overflow: 'explode' is not known here; one of wrap"),
        ('interpreter = "lava"', 'interpreter = "larva"', "target.interpreter: 'larva' is not known here"),
        ("value = 254", "value = -256", "weight.most: must be above weight.least"),
        ("value = 254", "value = 255", "weight.step: does not lead from weight.least to weight.most"),
        ("value = -4096", "value = 4096", "bias.mantissa_most: must not be below bias.mantissa_least"),
        ('name = "loihi"\n', "", r"mychip\.toml:\d+, target\.name: missing key"),
        ('value = 8, unit = "chips"', 'value = 0, unit = "chips"', "boards.kapoho-point: must be positive, is 0"),
        ("\n[chip]", "\nspare = 3\n\n[chip]", "core.spare: a figure without a source"),
    ],
)
def test_target_refuses(mychip: Path, old: str, new: str, message: str) -> None:
    text = mychip.read_text()
    table = message.partition(".")[0] if old.startswith("value = 4095") else ""
    start = text.index("[core]") if table == "core" else 0
    assert old in text[start:]
    mychip.write_text(text[:start] + text[start:].replace(old, new, 1))
    with pytest.raises(SheetError, match=message):
        Target.load("./mychip.toml")


def test_a_board_by_name(mychip: Path) -> None:
    loihi = Target.load("loihi")
    assert loihi.on_board("kapoho-point").boards == (Board("kapoho-point", 8),)
    assert loihi.on_board("kapoho-point").most_cores == 960
    with pytest.raises(SheetError, match=r"loihi\.toml:\d+, boards: no board 'kapoho'; did you mean kapoho-point"):
        loihi.on_board("kapoho")
    text = mychip.read_text()
    mychip.write_text(text[: text.index("[boards]")] + text[text.index("[energy]") :])
    alone = Target.load("./mychip.toml")
    assert alone.boards == ()
    assert alone.most_cores == 120


def test_a_figure_without_source_is_refused_whatever_the_key(mychip: Path) -> None:
    lines = mychip.read_text().splitlines()
    tried = 0
    for number, line in enumerate(lines):
        if "source = " not in line:
            continue
        tried += 1
        stripped = re.sub(r', source = "[^"]*"', "", line)
        mychip.write_text("\n".join([*lines[:number], stripped, *lines[number + 1 :]]))
        with pytest.raises(SheetError, match=rf"mychip\.toml:{number + 1}, \S+: a figure without a source"):
            Target.load("./mychip.toml")
    assert tried == 45


def test_a_machine_is_no_cost_model_and_the_other_way_round() -> None:
    with pytest.raises(SheetError, match="is a cost model, not a machine; one of loihi, "):
        Target.load("horowitz45")
    with pytest.raises(SheetError, match=r"energy.synaptic_operation: unavailable: no energy .* is published"):
        CostModel.load("loihi")


@pytest.mark.parametrize("price", ["0", "-1.0"])
def test_a_price_is_positive(tmp_path: Path, price: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(sheets.find("targets", "horowitz45").read_text().replace("value = 0.9", f"value = {price}"))
    with pytest.raises(SheetError, match=r"cost_model\.ac: a price must be positive"):
        CostModel.load(str(path))
