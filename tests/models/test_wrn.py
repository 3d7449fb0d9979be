import pytest
import torch

from kdlearn.distill.taps import Taps
from kdlearn.measure import count_parameters
from kdlearn.models import SlimWRN


def parameters(widths, blocks):
    """Count by hand: 3 x 3 and 1 x 1 convolutions, two numbers a channel in each norm."""
    total, inputs = 9 * widths[0], widths[0]
    for width in widths:
        for _ in range(blocks):
            total += 2 * inputs + 9 * inputs * width + 2 * width + 9 * width * width
            total += inputs * width if inputs != width else 0
            inputs = width
    return total + 2 * inputs + 10 * inputs + 10


@pytest.mark.parametrize(
    ("widths", "blocks", "about"), [((16, 32, 64), 2, 175_000), ((8, 16, 32), 1, 20_000)]
)
def test_the_parameters_are_those_of_its_layers(widths, blocks, about):
    got = count_parameters(SlimWRN(widths, blocks=blocks))
    assert got == parameters(widths, blocks)
    assert got == pytest.approx(about, rel=0.02)


@pytest.mark.parametrize("stride", [1, 2])
def test_groups_two_and_three_halve_the_resolution(stride):
    model = SlimWRN((8, 16, 32), blocks=1, stem_stride=stride)
    with Taps(model, ["stem", "group1", "group2", "group3"]) as taps:
        assert model(torch.rand(2, 1, 40, 40)).shape == (2, 10)
    side = 40 // stride
    assert taps["stem"].shape == taps["group1"].shape == (2, 8, side, side)
    assert taps["group2"].shape == (2, 16, side // 2, side // 2)
    assert taps["group3"].shape == (2, 32, side // 4, side // 4)


def test_groups_are_read_before_their_relu():
    torch.manual_seed(0)
    model = SlimWRN((8, 16, 32), blocks=1)
    with Taps(model, ["group3"]) as taps:
        model(torch.rand(4, 1, 16, 16))
    assert taps["group3"].min() < 0


def test_a_block_of_equal_shapes_adds_to_its_input():
    block = SlimWRN((8, 16, 32), blocks=2).group1[1]
    torch.nn.init.zeros_(block.conv2.weight)
    features = torch.randn(2, 8, 5, 5)
    assert torch.equal(block(features), features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (8, 16)}, r"3 numbers, one a group, got \(8, 16\)"),
        ({"widths": (8, 0, 32)}, r"widths\[1\] is 0: expected"),
        ({"blocks": 0}, "blocks is 0: expected"),
    ],
)
def test_a_wrong_size_is_told(options, message):
    with pytest.raises(ValueError, match=message):
        SlimWRN(**options)
