"""Event recordings in their original formats, written here byte by byte, and how they are cut into frames."""

from __future__ import annotations

import contextlib
import re
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from snncompile.errors import ReadError
from snncompile.recipe import Recipe
from snncompile.train import samples
from snncompile.train.aedat import read_aedat2, read_aedat3
from snncompile.train.data import CLASSES, load, load_for
from snncompile.train.frames import Cut, Events
from snncompile.train.samples import Decoded

HEADER2 = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n# Timestamps tick is 1 us\r\n"
HEADER3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2016-06-02 14:53:58 (TZ+0200)\r\n"
HEADER3 += b"#!END-HEADER\r\n"


def aedat2(*events: tuple[int, int, int, int]) -> bytes:
    """A CIFAR10-DVS file: (row, column, on, time) of the upright picture as the address of a camera on its side."""
    body = b""
    for row, column, on, time in events:
        body += struct.pack(">II", (127 - column) << 8 | (127 - row) << 1 | (1 - on), time)
    return HEADER2 + body


def packet(*events: tuple[int, int, int, int], over: int = 0, kind: int = 1, valid: int = 1, room: int = 0) -> bytes:
    """A packet of an AEDAT 3.1 file: (x, y, on, time)."""
    head = struct.pack("<HHIIIIII", kind, 1, 8, 4, over, len(events) + room, len(events), len(events) * valid)
    body = b"".join(struct.pack("<II", x << 17 | y << 2 | on << 1 | valid, time) for x, y, on, time in events)
    return head + body + bytes(8 * room)


def four(events: Events) -> list[tuple[int, ...]]:
    """(x, y, on, time) of each."""
    return list(zip(*(field.tolist() for field in vars(events).values()), strict=True))


def test_aedat_2(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(aedat2((0, 127, 1, 1000), (5, 6, 0, 1007), (127, 0, 1, 3000)))
    assert four(read_aedat2(path)) == [(127, 0, 1, 0), (6, 5, 0, 7), (0, 127, 1, 2000)]


def test_aedat_3(tmp_path: Path) -> None:
    path = tmp_path / "a.aedat"
    path.write_bytes(
        HEADER3
        + packet((1, 2, 1, 10), (3, 4, 0, 20))
        + packet((9, 9, 1, 15), kind=0)  # a special event
        + packet((8, 8, 1, 16), valid=0)  # an invalid one
        + packet((127, 0, 0, 5), over=1, room=3)  # the clock has run over once
    )
    assert four(read_aedat3(path)) == [(1, 2, 1, 10), (3, 4, 0, 20), (127, 0, 0, 2**31 + 5)]
    assert four(read_aedat3(path, 15, 2**31)) == [(3, 4, 0, 5)]
    assert four(read_aedat3(path, 20, 21)) == [(3, 4, 0, 0)]
    assert four(read_aedat3(path, 21, 30)) == []


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_aedat2, b"", "cannot be read"),
        (read_aedat2, HEADER2, "0 bytes are no whole number of events"),
        (read_aedat2, aedat2((1, 1, 1, 1))[:-1], "7 bytes are no whole number"),
        (read_aedat2, HEADER3, "starts with b'#!AER-DAT3.1"),
        (read_aedat3, HEADER2, "starts with b'#!AER-DAT2.0"),
        (read_aedat3, HEADER3 + packet((1, 1, 1, 1))[:20], "ends inside a packet"),
        (read_aedat3, HEADER3 + packet((1, 1, 1, 1))[:-1], "ends inside a packet (1 events of 8 bytes"),
        (read_aedat3, b"#!AER-DAT3.1", "has no end of its first lines"),
        (read_aedat3, HEADER3 + struct.pack("<HHIIIIII", 1, 1, 16, 4, 0, 1, 1, 1) + bytes(16), "events of 16 bytes"),
        (read_aedat3, HEADER3 + struct.pack("<HHIIIIII", 1, 1, 2**31, 4, 0, 2**31, 1, 1), "ends inside a packet"),
    ],
)
def test_recordings_that_are_refused(tmp_path: Path, read, content: bytes, message: str) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.aedat"
    path.write_bytes(content)
    with pytest.raises(ReadError, match=re.escape(message)):
        read(path)


def cifar10_dvs(root: Path, each: int = 10) -> Path:
    """The official layout with recordings of two events; the number is in the row, the class in the column."""
    for label, name in enumerate(CLASSES["cifar10-dvs"]):
        folder = root / "CIFAR10DVS" / name
        folder.mkdir(parents=True)
        for number in range(each):
            content = aedat2((number, label, 1, 7), (number, label, 0, 9))
            (folder / f"cifar10_{name}_{number}.aedat").write_bytes(content)
    return root


def test_cifar10_dvs(tmp_path: Path) -> None:
    root = cifar10_dvs(tmp_path)
    train, test = (load(f"cifar10-dvs:{split}", root, steps=2) for split in ("train", "test"))
    assert (len(train), len(test)) == (90, 10)
    assert train.y.tolist() == list(range(10)) * 9
    assert train.x.shape == (90, 2, 2, 128, 128)
    for index in (0, 37, 89):
        label, number = index % 10, index // 10
        assert np.argwhere(train.x[index]).tolist() == [[0, 1, number, label], [1, 0, number, label]]
    assert [int(np.argwhere(one)[0, 2]) for one in np.asarray(test.x)] == [9] * 10
    small = load("cifar10-dvs:train:11", root, shape=(2, 48, 48), steps=2)
    assert small.x.shape == (11, 2, 2, 48, 48)
    assert np.argwhere(small.x[10]).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]  # pixel (1, 0) of 128 is in cell (0, 0)
    with pytest.raises(ReadError, match="128 x 128 pixels"):
        load("cifar10-dvs", root, shape=(2, 200, 200), steps=2)
    for path in (root / "CIFAR10DVS" / "ship").iterdir():
        path.unlink()
    with pytest.raises(ReadError, match=r"ship holds no recordings; .*figshare"):
        load("cifar10-dvs", root, steps=2)


def gestures(root: Path) -> Path:
    """Two recordings, one a split; three gestures in the first."""
    folder = root / "DvsGesture"
    folder.mkdir()
    (folder / "trials_to_train.txt").write_text("user01_led.aedat\n")
    (folder / "trials_to_test.txt").write_text("user24_led.aedat\n")
    for name, rows in (("user01_led", ((3, 100, 200), (1, 300, 400), (11, 400, 500))), ("user24_led", ((2, 0, 50),))):
        events = [(label, 2, 1, start) for label, start, _ in rows] + [
            (label, 4, 0, stop - 1) for label, _, stop in rows
        ]
        events += [(99, 99, 1, 250), (99, 99, 1, 500)]  # between and after
        content = b"".join(packet(one) for one in sorted(events, key=lambda one: one[3]))
        (folder / f"{name}.aedat").write_bytes(HEADER3 + content)
        table = ["class,startTime_usec,endTime_usec", *(f"{label},{start},{stop}" for label, start, stop in rows)]
        (folder / f"{name}_labels.csv").write_text("\n".join(table) + "\n")
    return root


def test_dvs_gesture(tmp_path: Path) -> None:
    root = gestures(tmp_path)
    train, test = (load(f"dvs-gesture:{split}", root, steps=2) for split in ("train", "test"))
    assert train.y.tolist() == [2, 0, 10]
    assert test.y.tolist() == [1]
    assert len(train.classes) == 11
    for index, label in enumerate((3, 1, 11)):
        assert np.argwhere(train.x[index]).tolist() == [[0, 1, 2, label], [1, 0, 4, label]]
    (root / "DvsGesture" / "user01_led_labels.csv").write_text("class,startTime_usec,endTime_usec\n12,0,1\n")
    with pytest.raises(ReadError, match="'12,0,1' is no gesture"):
        load("dvs-gesture:train", root, steps=2)
    (root / "DvsGesture" / "user01_led_labels.csv").unlink()
    with pytest.raises(ReadError, match=r"user01_led_labels\.csv"):
        load("dvs-gesture:train", root, steps=2)


# Frames

SEVEN = Events(*(np.array(field) for field in ([0, 1, 2, 3, 3, 3, 0], [0] * 7, [1] * 7, [0, 1, 2, 30, 31, 32, 99])))
"""Seven events in a row of four pixels."""


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (Cut(2, 9), [[1, 1, 1, 3], [1, 0, 0, 0]]),  # 50 us each
        (Cut(2, 2), [[1, 1, 1, 2], [1, 0, 0, 0]]),
        (Cut(2, 9, "count"), [[1, 1, 1, 0], [0, 0, 0, 3]]),  # 7 // 2 = 3 each, one is left over
        (Cut(2, 9, "milliseconds", 0.031), [[1, 1, 1, 1], [0, 0, 0, 2]]),  # the last is too late
        (Cut(8, 9, "count"), [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], *[[0, 0, 0, 1]] * 3, [1, 0, 0, 0], [0] * 4]),
        (Cut(2, 0, division="maximum"), [[1 / 3, 1 / 3, 1 / 3, 1], [1, 0, 0, 0]]),
    ],
)
def test_frames(cut: Cut, expected: list[list[float]]) -> None:
    frames = cut.frames(SEVEN, 4, (4, 4), Path("a"))
    assert frames.dtype == (np.uint8 if cut.division == "none" else np.float32)
    assert np.array_equal(frames[:, 1, 0], np.array(expected, frames.dtype))
    assert not frames[:, 0].any()
    assert not frames[:, :, 1:].any()


def test_a_smaller_frame_adds_neighbours_up() -> None:
    assert Cut(1, 9).frames(SEVEN, 4, (2, 2), Path("a"))[0, 1].tolist() == [[3, 4], [0, 0]]
    assert Cut(1, 9).frames(SEVEN, 4, (4, 3), Path("a"))[0, 1, 0].tolist() == [3, 1, 3]  # pixels 0 and 1 share a cell


def test_an_empty_recording_has_empty_frames() -> None:
    nothing = Events(*(np.zeros(0, np.int64) for _ in range(4)))
    for by in ("time", "count"):
        assert not Cut(3, division="maximum", by=by).frames(nothing, 4, (4, 4), Path("a")).any()


EVENTS = st.lists(
    st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 1), st.sampled_from([0, 1, 7, 30, 999, 10**9])),
    max_size=12,
)


@given(EVENTS, st.integers(1, 5), st.sampled_from(["time", "count", "milliseconds"]), st.booleans(), st.integers(0, 6))
def test_frames_event_by_event(
    events: list[tuple[int, int, int, int]], steps: int, by: Any, divided: bool, window: int
) -> None:
    """docs/data.md in plain Python: no events, one, all at one time, recordings shorter than the frames."""
    window = 0 if window < 3 else window
    cut = Cut(steps, 2, by, 0.01 if by == "milliseconds" else 0.0, "maximum" if divided else "none", window)
    counts = np.zeros((steps, 2, 3, 2))
    end = max((time for *_, time in events), default=0)
    each = max(1, len(events) // steps)
    for number, (x, y, polarity, time) in enumerate(events):
        frame = {"time": time * steps // (end + 1), "count": number // each, "milliseconds": time // 10}[by]
        side = window or 6
        if frame < steps and x < side and y < side:
            counts[frame, polarity, y * 3 // side, x * 2 // side] += 1
    fields = zip(*events, strict=True) if events else [[]] * 4
    frames = cut.frames(Events(*(np.array(field, np.int64) for field in fields)), 6, (3, 2), Path("a"))
    largest = np.maximum(counts.max(axis=(1, 2, 3), keepdims=True), 1)
    assert np.array_equal(frames, (counts / largest).astype(np.float32) if divided else np.minimum(counts, 2))


def test_frames_of_a_length_too_short_for_any_integer() -> None:
    """2^62 microseconds in frames of a nanosecond: more frames than 64 bits count, and none of them is seen."""
    late = Events(*(np.array([number]) for number in (1, 1, 1, 2**62)))
    assert not Cut(2, 1, "milliseconds", 1e-6).frames(late, 4, (4, 4), Path("a")).any()


def test_frames_of_a_recipe(small, tmp_path: Path) -> None:
    root = cifar10_dvs(tmp_path)
    network = {"input": [2, 16, 16], "architecture": "10FC"}
    divided = small(network=network, data={"name": "cifar10-dvs", "frames": "count", "division": "maximum"})
    split = load_for(divided, "train", root)
    assert split.x.dtype == np.float32
    assert split.x.max() == 1.0
    counted = small(network=network, data={"name": "cifar10-dvs", "most": 3})
    assert load_for(counted, "train", root, steps=5).x.shape == (90, 5, 2, 16, 16)


# Streaming


def test_large_sets_are_decoded_as_they_are_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = cifar10_dvs(tmp_path)
    whole = load("cifar10-dvs:train", root, steps=2)
    assert whole.held
    monkeypatch.setattr(samples, "AT_ONCE", 0)
    monkeypatch.setattr(samples, "KEPT", 0)
    streamed = load("cifar10-dvs:train", root, steps=2)
    assert isinstance(streamed.x, Decoded)
    assert not streamed.held
    chosen = np.array([5, 88, 5])
    assert np.array_equal(streamed.batch(chosen, 3), whole.batch(chosen, 3))
    assert np.array_equal(np.asarray(streamed.x), whole.x)
    assert np.array_equal(streamed.x[-1], whole.x[-1])
    assert np.array_equal(streamed.x[10:20:3], whole.x[10:20:3])
    assert streamed.digest == load("cifar10-dvs:train", root, steps=2).digest
    assert streamed.digest != load("cifar10-dvs:train", root, steps=3).digest
    decoded: list[int] = []
    read = streamed.x.decode
    streamed.x.decode = lambda index, drawn: (decoded.append(index), read(index, drawn))[1]
    streamed.batch(np.array([7, 9]))
    assert decoded == [7, 9]


def test_what_was_decoded_is_kept_where_it_fits() -> None:
    decoded: list[int] = []

    def decode(index: int, _: object) -> np.ndarray:
        decoded.append(index)
        return np.full(3, index)

    kept = Decoded(4, (3,), np.int64, decode, b"")
    assert kept[np.array([2, 2, 0])].tolist() == [[2] * 3, [2] * 3, [0] * 3]
    assert np.asarray(kept).tolist() == [[index] * 3 for index in range(4)]
    assert decoded == [2, 0, 1, 3]


def test_threads_that_decode_side_by_side_keep_one_another_s_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both find nothing kept yet; the array that the second one makes must not take the place of the first one's."""
    slow, empty = threading.Barrier(2), np.empty

    def made(*given: Any) -> np.ndarray:
        with contextlib.suppress(threading.BrokenBarrierError):
            slow.wait(timeout=0.5)  # both have come this far, if nothing keeps one of them back
        return np.full_like(empty(*given), -1)

    kept = Decoded(2, (3,), np.int64, lambda index, _: empty(3, np.int64) * 0 + index, b"")
    monkeypatch.setattr(samples.np, "empty", made)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(kept.at, [np.array([0]), np.array([1])]))
    assert np.asarray(kept).tolist() == [[0] * 3, [1] * 3]


@pytest.mark.data
def test_real_recordings_cut_in_every_way() -> None:
    recipe = Recipe.load("nmnist-tet")
    counts = load_for(recipe, "train:5")
    assert counts.x.shape == (5, 10, 2, 34, 34)
    assert counts.y is not None
    by_time, by_count = (
        [Cut(10, 255, by).frames(one.read(one.path), 34, (34, 34), one.path) for one in listed()]
        for by in ("time", "count")
    )
    for left, right in zip(by_time, by_count, strict=True):
        totals = right.sum(axis=(1, 2, 3), dtype=np.int64)
        assert len(set(totals.tolist())) == 1  # as many events in every frame
        assert 0 <= left.sum(dtype=np.int64) - totals.sum() < 10


def listed():  # type: ignore[no-untyped-def]
    """The first recordings of the real set."""
    from snncompile.train.places import folder_of
    from snncompile.train.recordings import recordings

    return recordings("nmnist", folder_of("nmnist", None), "test", CLASSES["nmnist"])[:5]
