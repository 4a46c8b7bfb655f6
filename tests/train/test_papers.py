"""The networks of the papers, as the catalogue has them: parameters, neurons, and what each sheet must say.

``REPORTED`` are the figures of the papers or of their code. Where neither gives one, ``DERIVED`` counts by hand, layer
by layer, from the table of layers that the code builds.
"""

from __future__ import annotations

from math import prod

import pytest
import torch

from snncompile import sheet
from snncompile.recipe import Recipe
from snncompile.train.networks import Network

REPORTED = {
    "cifar10-snn5-tet": 2_253_098,
    "cifar10dvs-vggsnn-tet": 9_271_498,
    "cifar10dvs-vggsnn-strided-tet": 9_271_498,
    "cifar10-resnet19-tet": 12_630_858,
    "cifar100-resnet19-tet": 12_653_988,
    "mnist-lenet-asf": 517_500,
}


def conv(before: int, after: int, kernel: int = 3, bias: bool = False) -> int:
    return before * after * kernel**2 + (after if bias else 0)


def conv_norm(before: int, after: int, kernel: int = 3, bias: bool = False) -> int:
    return conv(before, after, kernel, bias) + 2 * after


def fc(before: int, after: int, bias: bool = True) -> int:
    return before * after + (after if bias else 0)


def post_stage(before: int, after: int, blocks: int, *, strided: bool) -> int:
    """Basic blocks without biases: two convolutions with norms each; 1x1 with norm where width or size change."""
    skip = conv_norm(before, after, 1) if strided or before != after else 0
    return conv_norm(before, after) + conv_norm(after, after) + skip + (blocks - 1) * 2 * conv_norm(after, after)


def resnet(blocks: tuple[int, ...], stem: int, *, strided_first: bool = False) -> int:
    """Stages of 64, 128, 256 and 512 channels behind a stem of 64."""
    widths = (64, 64, 128, 256, 512)
    stages = zip(widths, widths[1:], blocks, strict=False)
    first = strided_first
    return stem + sum(post_stage(a, b, n, strided=first if a == b else True) for a, b, n in stages)


def pre_stage(before: int, after: int, *, strided: bool) -> int:
    """Two blocks of DSR: norm, one threshold, convolution with bias, twice each; 1x1 with bias on a changed skip."""
    first = 2 * before + 1 + conv(before, after, bias=True) + 2 * after + 1 + conv(after, after, bias=True)
    second = 2 * (2 * after + 1 + conv(after, after, bias=True))
    return first + second + (conv(before, after, 1, bias=True) if strided else 0)


PREACT = (
    conv(3, 64)
    + pre_stage(64, 64, strided=False)
    + pre_stage(64, 128, strided=True)
    + pre_stage(128, 256, strided=True)
    + pre_stage(256, 512, strided=True)
    + 2 * 512
    + 1  # norm and neurons behind the last block
    + 1  # neurons behind the pool
    + fc(512, 10)
    + 2 * 10
    + 1  # with norm and neurons
)
VGG11 = (
    sum(
        conv_norm(a, b, bias=True) + 1
        for a, b in ((2, 64), (64, 128), (128, 256), (256, 256), (256, 512), (512, 512), (512, 512), (512, 512))
    )
    + fc(25088, 10)
    + 2 * 10
    + 1
)
RESTRICTION = 1  # g, one number for each feedback weight


def feedback_net(widths: tuple[int, ...], back: int) -> int:
    """IDE, CIFAR: convolutions with bias and norm, one back without either, and 64 places into the last layer."""
    forward = sum(conv_norm(a, b, bias=True) for a, b in zip((3, *widths), widths, strict=False))
    return forward + conv(widths[-1], back) + RESTRICTION + fc(64 * widths[-1], 10)


DERIVED = {
    "cifar10-resnet19-stem128-tet": conv_norm(3, 128)
    + post_stage(128, 128, 3, strided=False)
    + post_stage(128, 256, 3, strided=True)
    + post_stage(256, 512, 2, strided=True)
    + fc(512, 256)
    + fc(256, 10),
    "imagenet-spikingresnet34-tet": resnet((3, 4, 6, 3), conv_norm(3, 64, 7)) + fc(512, 1000),
    "imagenet-sewresnet34-tet": resnet((3, 4, 6, 3), conv_norm(3, 64, 7)) + fc(512, 1000),
    "imagenet-spikingresnet34-tdbn-tet": resnet((3, 4, 6, 3), conv_norm(3, 64, 7), strided_first=True) + fc(512, 1000),
    "cifar10-sewresnet18-tet": resnet((2, 2, 2, 2), conv_norm(3, 64)) + fc(512, 10),
    "cifar10-resnet18-idsnn": resnet((2, 2, 2, 2), conv_norm(3, 64)) + fc(512, 10),
    "cifar100-resnet18-idsnn": resnet((2, 2, 2, 2), conv_norm(3, 64)) + fc(512, 100),
    "cifar10-resnet34-ann": resnet((3, 4, 6, 3), conv_norm(3, 64)) + fc(512, 10),
    "cifar100-resnet34-ann": resnet((3, 4, 6, 3), conv_norm(3, 64)) + fc(512, 100),
    "cifar10-preactresnet18-dsr": PREACT,
    "cifar10-preactresnet18-dsr-if": PREACT,
    "cifar10-preactresnet18-dsr-t5": PREACT,
    "cifar10dvs-vgg11-dsr": VGG11,
    "cifar10-vgg7-asf": conv(3, 64) + conv(64, 64) + conv(64, 128) + 2 * conv(128, 128) + 8192 * 1024 + 10240,
    "cifar10dvs-asf": conv(2, 64)
    + conv(64, 64)
    + conv(64, 128)
    + conv(128, 128)
    + conv(128, 256)
    + 256 * 10 * 10 * 1024
    + 10240,
    "mnist-f64c5-ide": conv_norm(1, 64, 5, bias=True) + conv(64, 64, 5) + RESTRICTION + fc(12544, 10),
    "nmnist-f64c5-ide": conv_norm(2, 64, 5, bias=True) + conv(64, 64, 5) + RESTRICTION + fc(64 * 16 * 16, 10),
    "fashion-f400-ide": fc(784, 400) + 800 + 400 * 400 + RESTRICTION + fc(400, 10),
    "cifar10-alexnetf-ide": feedback_net((96, 256, 384, 384, 256), 96),
    "cifar10-cifarnetf-ide": feedback_net((128, 256, 512, 1024, 512), 128),
}
NEURONS = {  # the outputs of DSR, which fire, among them
    "cifar10-snn5-tet": 139_264,
    "cifar10dvs-vggsnn-tet": 921_600,
    "cifar10dvs-vggsnn-strided-tet": 520_704,
    "cifar10-resnet19-tet": 1_376_512,
    "mnist-lenet-asf": 32_050,
}
OURS = ("digits-tet", "fashion-lenet-tet", "nmnist-tet")


@pytest.mark.parametrize(("name", "parameters"), (REPORTED | DERIVED).items())
def test_parameters_are_those_of_the_papers_and_their_code(name: str, parameters: int) -> None:
    with torch.device("meta"):
        network = Network(Recipe.load(name))
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def test_every_network_of_a_paper_is_counted() -> None:
    counted = REPORTED.keys() | DERIVED.keys() | set(OURS)
    assert {name for name in sheet.names("models") if not name.endswith(("-cpu", "-gpu"))} == counted


@pytest.mark.parametrize(("name", "neurons"), NEURONS.items())
def test_neurons_are_those_of_the_papers(name: str, neurons: int) -> None:
    """Counted on the shapes that torch gives, one step of one sample."""
    recipe = Recipe.load(name)
    with torch.device("meta"):
        network = Network(recipe).eval()
        seen = network.record(torch.empty(1, *(() if recipe.data.static else (recipe.steps,)), *recipe.input))
    counted = [prod(values.shape[2:]) for name, values in seen.items() if name.endswith(".s")]
    assert sum(counted) == neurons


@pytest.mark.parametrize("name", [name for name in sheet.names("models") if not name.endswith(("-cpu", "-gpu"))])
def test_a_sheet_says_what_was_published_or_why_nothing(name: str) -> None:
    published = Recipe.load(name).published
    assert published is not None
    assert published.accuracy is None or 30.0 < published.accuracy < 100.0
    assert len(published.source) > 20
