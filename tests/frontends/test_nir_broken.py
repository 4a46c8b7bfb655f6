"""Files that lie: each is one clear ``ReadError`` that names the place, takes little memory and never a traceback."""

from __future__ import annotations

import resource
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import nir
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import ReadError, UnsupportedNode
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options

STRING = h5py.string_dtype()
ONES = np.ones(4)
Change = Callable[[Any], None]


def good(path: Path) -> Path:
    """A small convolutional network in the canonical dialect."""
    ones = np.ones((3, 6, 6))
    nodes = {
        "input": nir.Input(np.array([2, 6, 6])),
        "conv": nir.Conv2d((6, 6), np.ones((3, 2, 3, 3)), 1, 1, 1, 1, np.zeros(3)),
        "lif": nir.LIF(2e-4 * ones, 2 * ones, 0 * ones, ones, 0 * ones),
        "pool": nir.SumPool2d(np.array([2, 2]), np.array([2, 2]), np.array([0, 0])),
        "flatten": nir.Flatten(np.array([3, 3, 3]), 0, -1),
        "fc": nir.Affine(np.ones((4, 27)), np.ones(4)),
        "last": nir.LIF(*(value * np.ones(4) for value in (2e-4, 2, 0, 1, 0))),
        "output": nir.Output(np.array([4])),
    }
    names = list(nodes)
    nir.write(path, nir.NIRGraph(nodes=nodes, edges=list(pairwise(names))))
    return path


def put(place: str, value: Any, **how: Any) -> Change:
    """Replace a dataset, below the nodes."""

    def change(file: Any) -> None:
        if place in file["node/nodes"]:
            del file["node/nodes"][place]
        file["node/nodes"].create_dataset(place, data=value, **how)

    return change


def drop(place: str) -> Change:
    return lambda file: file.__delitem__(f"node/nodes/{place}")


def edges(*pairs: tuple[str, str], more: bool = True) -> Change:
    def change(file: Any) -> None:
        old = [tuple(end.decode() for end in pair) for pair in file["node/edges"][()]] if more else []
        del file["node/edges"]
        file["node"].create_dataset("edges", data=[*old, *pairs], dtype=STRING)

    return change


def node(name: str, kind: str, **fields: Any) -> Change:
    def change(file: Any) -> None:
        group = file["node/nodes"].create_group(name)
        group["type"] = kind
        for key, value in fields.items():
            group[key] = value

    return change


def both(*changes: Change) -> Change:
    def change(file: Any) -> None:
        for one in changes:
            one(file)

    return change


def linked(link: Any, place: str = "node/nodes/fc/weight") -> Change:
    def change(file: Any) -> None:
        del file[place]
        file[place] = link

    return change


def huge(file: Any) -> None:
    """Ten gigabytes, of which nothing is stored."""
    del file["node/nodes/fc/weight"]
    file["node/nodes/fc"].create_dataset("weight", (4, 335_544_320), "f8")


def bomb(file: Any) -> None:
    """A gigabyte of zeros in a megabyte."""
    del file["node/nodes/fc/weight"]
    made = file["node/nodes/fc"].create_dataset("weight", (4, 2**25), "f8", chunks=(4, 2**19), compression="gzip")
    packed = zlib.compress(bytes(4 * 2**19 * 8), 9)
    for start in range(0, 2**25, 2**19):
        made.id.write_direct_chunk((0, start), packed)


def stream(file: Any) -> None:
    """A dataset of 864 bytes whose stream unpacks to 300 MB."""
    del file["node/nodes/fc/weight"]
    made = file["node/nodes/fc"].create_dataset("weight", (4, 27), "f8", chunks=(4, 27), compression="gzip")
    made.id.write_direct_chunk((0, 0), zlib.compress(bytes(300_000_000), 9))


def chunky(file: Any) -> None:
    """Pieces of a gigabyte for a few numbers."""
    del file["node/nodes/fc/weight"]
    file["node/nodes/fc"].create_dataset(
        "weight", (4, 27), "f8", chunks=(4, 2**25), maxshape=(None, None), compression="gzip"
    )


def laughing(file: Any) -> None:
    """Graphs that hold the graph below twice, sixteen deep: 65,536 in the end, by hard links to one."""
    inner = file.create_group("inner")
    inner["type"] = "NIRGraph"
    inner.create_group("nodes")
    inner.create_dataset("edges", (0, 2), dtype=STRING)
    for depth in range(14):
        outer = file.create_group(f"outer{depth}")
        outer["type"] = "NIRGraph"
        outer.create_dataset("edges", (0, 2), dtype=STRING)
        for name in "ab":
            outer[f"nodes/{name}"] = inner
        inner = outer
    file["node/nodes/laughing"] = inner


def endless(file: Any) -> None:
    """A graph that holds itself."""
    file["node/nodes/again"] = file["node"]


def deep(file: Any) -> None:
    group = file["node/nodes"]
    for _ in range(20):
        group = group.create_group("inner")
        group["type"] = "NIRGraph"
        group.create_dataset("edges", (0, 2), dtype=STRING)
        group = group.create_group("nodes")


def crowded(file: Any) -> None:
    for index in range(16_384):
        file["node/nodes"].create_group(str(index))


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout(shape=(4, 27), dtype="f8")
    layout[:] = h5py.VirtualSource("other.h5", "x", shape=(4, 27))
    del file["node/nodes/fc/weight"]
    file["node/nodes/fc"].create_virtual_dataset("weight", layout)


def many(file: Any) -> None:
    """Two hundred thousand edges, packed into nothing."""
    del file["node/edges"]
    file["node"].create_dataset("edges", data=np.full((200_000, 2), b"fc"), compression="gzip")


def reference(file: Any) -> None:
    del file["node/nodes/fc/weight"]
    file["node/nodes/fc"].create_dataset("weight", data=[file["node"].ref] * 108, dtype=h5py.ref_dtype)


BROKEN: dict[str, tuple[Change, str]] = {
    "an edge to nowhere": (edges(("last", "nowhere")), r"edge last -> nowhere: no node 'nowhere'"),
    "an edge from nowhere": (edges(("nowhere", "last")), r"edge nowhere -> last: no node 'nowhere'"),
    "edges of three": (
        both(
            lambda f: f["node"].__delitem__("edges"), lambda f: f["node"].create_dataset("edges", data=np.ones((3, 3)))
        ),
        r"its edges are \[3, 3\] float64 \(\[edges, 2\] names\)",
    ),
    "no edges": (lambda f: f["node"].__delitem__("edges"), "has no dataset 'edges'"),
    "no nodes": (lambda f: f["node"].__delitem__("nodes"), "has no group 'nodes'"),
    "no node": (lambda f: f.__delitem__("node"), "has no group 'node'"),
    "no type": (drop("fc/type"), "fc: has no type"),
    "a number for a type": (put("fc/type", 3), "fc: type is no text"),
    "an unknown node": (node("x", "MaxPool2d"), r"x: no NIR primitive is called 'MaxPool2d'; NIR 1.0.8 has Input"),
    "an unknown field": (put("fc/gain", 3.0), r"fc \(Affine\): has a field 'gain' \(a Affine has weight, bias"),
    "a field that is missing": (drop("lif/tau"), r"lif \(LIF\): has no tau"),
    "a slash in a name": (node("block/x", "Threshold", threshold=np.ones(4)), "block: has no type .*a '/' in a name"),
    "a dataset for a node": (put("x", np.ones(3)), "x: is a dataset, not a node"),
    "a group for a dataset": (
        both(drop("fc/weight"), lambda f: f["node/nodes/fc"].create_group("weight")),
        r"fc \(Affine\): weight is no dataset",
    ),
    "weights of another shape": (put("fc/weight", np.ones((4, 26))), r"fc .*weights \[4, 26\] do not take \[27\]"),
    "weights of one axis": (put("fc/weight", np.ones(27)), r"fc .*weights \[27\] are no matrix"),
    "a bias of another shape": (put("fc/bias", np.ones(5)), r"fc .*its bias is \[5\], its weights give 4"),
    "parameters of another shape": (put("last/r", 2 * np.ones(5)), r"last .*its tau is \[4\], its r \[5\]"),
    "a threshold of another shape": (put("last/v_threshold", np.ones(5)), r"last .*its v_threshold is \[5\]"),
    "channels of another number": (put("conv/weight", np.ones((3, 4, 3, 3))), r"conv .*do not take \[2, 6, 6\]"),
    "a kernel without end": (put("conv/weight", np.ones((3, 2, 9, 9))), r"conv .*kernel \[9, 9\] is larger"),
    "groups that do not divide": (put("conv/groups", 2), r"conv .*2 groups of 3 channels"),
    "a stride of zero": (put("conv/stride", np.array([0, 1])), r"conv .*stride \[0, 1\]"),
    "a stride of a half": (put("conv/stride", 0.5), r"conv .*stride is 0.5 \(a size is an integer\)"),
    "a stride of three axes": (put("conv/stride", np.array([1, 1, 1])), r"conv .*its stride is \[1, 1, 1\] \(2 axes\)"),
    "an unknown padding": (put("conv/padding", "full"), r"conv .*its padding is 'full'"),
    "another input_shape": (put("conv/input_shape", np.array([7, 7])), r"conv .*its input_shape is \[7, 7\]"),
    "a padding without end": (put("conv/padding", np.array([2**25, 2**25])), r"conv .*gives \[3, .* values"),
    "a negative padding": (put("pool/padding", np.array([-1, 0])), r"pool .*kernel, stride and dilation start at 1"),
    "axes that are none": (put("flatten/start_dim", 5), r"flatten .*start_dim 5 and end_dim -1 are no axes"),
    "a shape of zero": (put("input/shape", np.array([0, 6, 6])), r"input .*its shape is \[0, 6, 6\]"),
    "a shape without end": (put("input/shape", np.full(4, 60_000)), r"input .*values \("),
    "a shape of text": (put("input/shape", "2x6x6"), r"input .*shape is the text '2x6x6', not numbers"),
    "an output of another shape": (put("output/shape", np.array([9])), r"output .*says \[9\], gets \[4\]"),
    "not a number": (put("fc/weight", np.full((4, 27), np.nan)), r"fc .*weight holds 108 values that are no numbers"),
    "infinity": (put("last/v_threshold", np.full(4, np.inf)), r"last .*v_threshold holds 4 values"),
    "no leak": (put("last/tau", np.zeros(4)), r"last .*its tau is 0 \(a time is above 0\)"),
    "complex numbers": (put("fc/weight", np.ones((4, 27), complex)), r"fc .*weight holds complex128, not numbers"),
    "references": (reference, r"fc .*weight holds object, not numbers"),
    "nothing": (put("fc/weight", h5py.Empty("f8")), r"fc .*weight is empty"),
    "ten gigabytes": (huge, r"fc .*weight claims the shape \[4, 335544320\] \(1,342,177,280 numbers, of which 0 bytes"),
    "a bomb": (bomb, r"fc .*weight unpacks to more than the file can hold"),
    "a stream that goes on": (stream, r"fc .*weight unpacks to more than its size"),
    "pieces of a gigabyte": (chunky, r"fc .*weight is stored in pieces of 1,073,741,824 bytes"),
    "texts without end": (many, r"edges holds 400,000 texts \(262,144 are read\)"),
    "a link outside": (linked(h5py.ExternalLink("/etc/hostname", "x")), r"weight is a link to somewhere else"),
    "a link inside": (linked(h5py.SoftLink("/node/nodes/lif/tau")), r"weight is a link to somewhere else"),
    "data elsewhere": (virtual, r"weight lies in another file"),
    "graphs without end": (endless, r"again: is another graph of the file, or holds it"),
    "graphs of graphs of graphs": (laughing, r"b: is another graph of the file"),
    "graphs twenty deep": (deep, r"its graphs are nested more than 16 deep"),
    "nodes without end": (crowded, r"has more than 16,384 nodes"),
    "metadata that are a number": (lambda f: f["node"].create_dataset("metadata/snncompile", data=3), "is no text"),
    "metadata that are no JSON": (lambda f: f["node"].create_dataset("metadata/snncompile", data="{"), "metadata"),
    "an input that is fed": (edges(("lif", "input")), r"input \(Input\): an Input that something feeds"),
    "an output that feeds": (edges(("output", "last")), r"output \(Output\): an Output that feeds something"),
    "a loop without a neuron": (
        both(node("s", "Scale", scale=np.ones((2, 6, 6))), edges(("input", "s"), ("s", "s"), ("s", "conv"))),
        "a loop without a neuron: s -> s",
    ),
    "a potential that goes on": (
        both(
            node("li", "CubaLI", tau_syn=2e-4 * ONES, tau_mem=2e-4 * ONES, r=2 * ONES, v_leak=0 * ONES),
            edges(("fc", "li"), ("li", "last")),
        ),
        r"li \(CubaLI\): is read as it is",
    ),
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The files, made once."""
    folder = tmp_path_factory.mktemp("broken")
    made = {}
    for index, (name, (change, _)) in enumerate(BROKEN.items()):
        made[name] = good(folder / f"{index:02}.nir")
        with h5py.File(made[name], "a") as file:
            change(file)
    return made


@pytest.mark.parametrize("name", BROKEN)
def test_it_is_refused_by_name(corpus: dict[str, Path], name: str) -> None:
    with pytest.raises(ReadError, match=BROKEN[name][1]) as caught:
        read(corpus[name])
    said = str(caught.value)
    assert said.startswith(str(corpus[name])), "the file is named"
    assert len(said) < 600


def test_the_whole_file_is_right_before_it_is_broken(tmp_path: Path) -> None:
    assert len(read(good(tmp_path / "n.nir")).graph.nodes) == 8


READER = """
import resource, sys
from pathlib import Path
from snncompile.errors import ReadError
from snncompile.frontends.nir import read
from snncompile.frontends.nir_options import Options
import h5py

with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + {more}, held + {more}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[1:]:
    start = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    try:
        read(Path(path))
    except ReadError as error:
        print("refused", end=" ")
    print(path, resource.getrusage(resource.RUSAGE_SELF).ru_utime - start)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory are Linux's")
def test_a_hundred_megabytes_are_enough_for_all_of_them(corpus: dict[str, Path]) -> None:
    """In a process that may take no more than that on top of what it holds."""
    command = [sys.executable, "-c", READER.format(more=128 << 20), *map(str, corpus.values())]
    limit = (60, 60)  # seconds of the processor for all: one that does not end is found
    done = subprocess.run(
        command,
        text=True,
        capture_output=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, limit),
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *lines, grown = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["refused"] * len(corpus)
    assert int(grown) < 100, "megabytes"


@given(cut=st.integers(0, 40_000))
def test_what_is_left_of_a_file_is_refused(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = good(tmp_path_factory.mktemp("cut") / "n.nir")
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)])
    with pytest.raises(ReadError):
        read(path)


@given(data=st.data())
def test_bytes_that_were_changed_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = good(tmp_path_factory.mktemp("flipped") / "n.nir")
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    with suppress(ReadError):
        read(path)


VALUES = (
    *(
        "text",
        h5py.Empty("f4"),
        np.array([]),
        np.array(1e300),
        np.array(-1),
        np.array([True]),
        np.full((3, 6, 6), 1e308),
    ),
    *(np.ones(shape) for shape in ((1,), (2,), (3,), (4,), (27,), (4, 4), (3, 1, 1), (0, 3))),
)
KINDS = ("LIF", "IF", "LI", "I", "Delay", "Scale", "Affine", "Conv2d", "Output", "NIRGraph", "Threshold", "Flatten")
OPTIONS = (
    Options(),
    Options("euler", 1.0, start="zero"),
    Options("exact", 0.5, start="reset", r="written"),
    Options("sinabs"),
    Options("loihi", 1e-4, r="step", start="leak", readout="sum", current="old"),
)


@given(data=st.data())
def test_fields_and_edges_that_were_changed_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = good(tmp_path_factory.mktemp("changed") / "n.nir")
    with h5py.File(path, "a") as file:
        nodes = file["node/nodes"]
        name = data.draw(st.sampled_from(sorted(nodes)))
        key = data.draw(st.sampled_from(sorted(nodes[name])))
        del nodes[name][key]
        if data.draw(st.booleans(), "put another"):
            nodes[name][key] = data.draw(st.sampled_from(KINDS if key == "type" else VALUES))
        if data.draw(st.booleans(), "an edge more"):
            edges(tuple(data.draw(st.sampled_from(sorted(nodes))) for _ in range(2)))(file)
    with suppress(ReadError):
        read(path, data.draw(st.sampled_from(OPTIONS)))


@pytest.mark.parametrize("content", [b"", b"\x89HDF\r\n\x1a\n", b"PK\x03\x04" + bytes(100), b"import os\n"])
def test_other_files_are_no_nir(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "n.nir"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=r"is no \.nir, or a damaged one"):
        read(path)


def test_hdf5_of_others_is_no_nir(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "n.nir", "w") as file:
        file["x"] = 3
    with pytest.raises(ReadError, match="has no group 'node'"):
        read(tmp_path / "n.nir")
    data = nir.NIRGraphData({"input": nir.NIRNodeData({"spikes": nir.TimeGriddedData(np.ones((1, 2, 3)), 1.0)})})
    nir.write_data(tmp_path / "d.nir", data)
    with pytest.raises(ReadError, match="holds data, not a network; give it to --data"):
        read(tmp_path / "d.nir")
    with pytest.raises(ReadError, match="no such file"):
        read(tmp_path / "nothing.nir")


def test_nodes_that_no_population_can_be(tmp_path: Path) -> None:
    """CubaLI at the end, and decays that differ in a read-out: refused by name and reason."""
    ones = np.ones(4)
    for last, said in (
        (nir.CubaLI(2e-4 * ones, 2e-4 * ones, 2 * ones, 0 * ones), r"last \(CubaLI\): is read as it is"),
        (nir.LI(np.array([1, 2, 3, 4.0]), np.array([1, 2, 3, 4.0]) * 2, 0 * ones), r"last \(LI\): its decay differs"),
    ):
        ends = {"input": nir.Input(np.array([4])), "output": nir.Output(np.array([4]))}
        graph = nir.NIRGraph(nodes={**ends, "last": last}, edges=[("input", "last"), ("last", "output")])
        nir.write(tmp_path / "n.nir", graph)
        with pytest.raises(UnsupportedNode, match=said):
            read(tmp_path / "n.nir")
