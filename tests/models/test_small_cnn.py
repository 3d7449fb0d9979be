import pytest
import torch

from kdlearn.distill.taps import Taps
from kdlearn.measure import count_parameters
from kdlearn.models import SmallCNN


@pytest.mark.parametrize("width", [4, 16])
def test_the_parameters_are_those_of_its_layers(width):
    convolutions = 9 * (width + 2 * width**2 + 8 * width**2)
    normalizations = 2 * (width + 2 * width + 4 * width)
    classifier = 16 * width * 10 + 10
    assert count_parameters(SmallCNN(width)) == convolutions + normalizations + classifier


def test_groups_halve_the_image_and_double_the_channels():
    model = SmallCNN(4, classes=7, channels=3)
    with Taps(model, ["group1", "group2", "group3"]) as taps:
        assert model(torch.rand(2, 3, 16, 16)).shape == (2, 7)
    shapes = [tuple(taps[f"group{i}"].shape) for i in (1, 2, 3)]
    assert shapes == [(2, 4, 8, 8), (2, 8, 4, 4), (2, 16, 2, 2)]


def test_larger_images_are_taken_too():
    assert SmallCNN(4)(torch.rand(2, 1, 40, 40)).shape == (2, 10)


def test_the_seed_decides_the_weights():
    torch.manual_seed(5)
    first = SmallCNN(4).state_dict()
    torch.manual_seed(5)
    again = SmallCNN(4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_a_width_of_zero_is_refused():
    with pytest.raises(ValueError, match="width is 0: expected a whole number >= 1"):
        SmallCNN(0)


def test_images_that_do_not_fit_are_told():
    for shape in ((2, 3, 16, 16), (2, 1, 4, 16), (1, 16, 16)):
        with pytest.raises(ValueError, match="make the network with channels= of the images"):
            SmallCNN(2)(torch.zeros(shape))
