"""Populations as compiled kernels: the same values as the loop that is written out, in numbers that round nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from snncompile.errors import SheetError, ToolError
from snncompile.train import fused
from snncompile.train.loop import Options, train_with
from snncompile.train.methods import course_of
from snncompile.train.networks import Network
from snncompile.train.neurons import Spiking
from snncompile.train.processes import Processes
from snncompile.train.surrogates import Surrogate
from tests.train.every_method import recipe_of
from tests.train.test_loop import silent


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels as they are written, not compiled."""
    monkeypatch.setattr(fused, "compiled", lambda function: function)
    fused._kernels.cache_clear()
    yield  # type: ignore[misc]
    fused._kernels.cache_clear()


def both(neuron: Spiking, x: Tensor, upstream: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Spikes, potentials and the gradient: of the loop, and of the kernels."""
    found = []
    for neuron.compiled in (False, True):
        own = x.clone(memory_format=torch.preserve_format).requires_grad_()
        spikes, potentials = neuron.integrate(own)
        spikes.backward(upstream)
        assert own.grad is not None
        found.append((spikes.detach(), potentials, own.grad))
    return found


def eighths(shape: tuple[int, ...], seed: int, largest: int = 16) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return torch.randint(-largest, largest + 1, shape, generator=drawn).double() / 8


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([">", ">="]),
    st.sampled_from(["zero", "subtract"]),
    st.sampled_from(["triangle", "rectangle", "atan"]),
    st.booleans(),
    st.sampled_from([1.0, 0.5]),
    st.sampled_from([1.0, 0.5]),
    st.integers(1, 5),
    st.integers(0, 2**20),
)
def test_kernels_are_the_loop(
    fires: Any, reset: Any, surrogate: Surrogate, detach: bool, decay: float, gain: float, steps: int, seed: int
) -> None:
    neuron = Spiking(
        *(decay, 1.0, fires, 0.5, detach),
        **{"reset": reset, "surrogate": surrogate, "gain": gain, "amount": 0.75, "initial": 0.25},
    )
    x, upstream = eighths((steps, 3, 5), seed), eighths((steps, 3, 5), seed + 1)
    (spikes, potentials, grad), (spikes2, potentials2, grad2) = _plain(neuron, x, upstream)
    assert torch.equal(spikes, spikes2)
    assert torch.equal(potentials, potentials2)
    if surrogate == "atan":  # the one that is no short fraction: a few roundings a step, each of 2^-53
        torch.testing.assert_close(grad, grad2, rtol=32 * steps * 2.0**-53, atol=2.0**-45)
    else:
        assert torch.equal(grad, grad2)


def _plain(neuron: Spiking, x: Tensor, upstream: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "compiled", lambda function: function)
        fused._kernels.cache_clear()
        try:
            return both(neuron, x, upstream)
        finally:
            fused._kernels.cache_clear()


def test_through_torch_compile_and_with_channels_innermost(monkeypatch: pytest.MonkeyPatch) -> None:
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **how: compile_(function, backend="aot_eager", **how))
    fused._kernels.cache_clear()
    x = eighths((3, 2, 4, 4, 5), 5).movedim(-1, 2)  # [T, B, C, H, W], channels innermost
    assert x.stride(2) == 1
    (spikes, potentials, grad), (spikes2, potentials2, grad2) = both(Spiking(), x, eighths((3, 2, 5, 4, 4), 6))
    fused._kernels.cache_clear()
    assert torch.equal(spikes, spikes2)
    assert torch.equal(potentials, potentials2)
    assert torch.equal(grad, grad2)
    assert spikes2.stride() == grad2.stride() == x.stride()


@pytest.mark.usefixtures("written")
def test_half_the_bits_in_and_out_and_whole_potentials() -> None:
    x = eighths((4, 6), 1).bfloat16().requires_grad_()
    neuron = Spiking()
    neuron.compiled = True
    spikes, potentials = neuron.integrate(x)
    spikes.sum().backward()
    assert (spikes.dtype, potentials.dtype) == (torch.bfloat16, torch.float32)
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16
    neuron.compiled = False
    assert torch.equal(neuron.integrate(x)[0], spikes.float())


@pytest.mark.usefixtures("written")
def test_a_training_with_kernels_starts_like_one_without(small) -> None:
    recipe = small()
    x, labels = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(3)), torch.arange(8)
    losses = []
    for compiled in (False, True):
        course = course_of(recipe)
        course.settle(Processes(), compiled=compiled)
        assert isinstance(course.network, Network)
        kinds = {module.compiled for module in course.network.modules_of.values() if isinstance(module, Spiking)}
        assert kinds == {compiled}
        losses.append(course.step(x, labels)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.usefixtures("written")
def test_the_teacher_of_a_compiled_training_is_trained_as_written(tmp_path: Path) -> None:
    recipe = recipe_of("idsnn", tmp_path, training={"epochs": 1, "samples": 200})
    assert train_with(recipe, None, tmp_path / "student.pt", Options(compile=True), silent).finished
    assert (tmp_path / "student.teacher.pt").is_file()


def test_methods_without_such_neurons_refuse(small, tmp_path: Path) -> None:
    recipe = small(recipe={"method": "dsr"}, dsr={"steps": 2})
    with pytest.raises(SheetError, match="neurons of dsr are not compiled"):
        train_with(recipe, None, tmp_path / "c.pt", Options(compile=True), silent)
    assert not (tmp_path / "c.pt").exists()


def test_a_compiler_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fails(function: Any, **_: object) -> Any:
        def run(*given: Tensor) -> None:
            raise TorchDynamoException("no compiler\nand more")

        return run

    monkeypatch.setattr(torch, "compile", fails)
    fused._kernels.cache_clear()
    neuron = Spiking()
    neuron.compiled = True
    with pytest.raises(ToolError, match=r"torch\.compile: makes no kernels.*no compiler.*without --compile"):
        neuron(torch.zeros(2, 3))
    fused._kernels.cache_clear()
