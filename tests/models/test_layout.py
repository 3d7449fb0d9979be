import pytest
import torch
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

from kdlearn.models import SlimWRN, SmallCNN
from kdlearn.models.layout import channels_last


@pytest.mark.parametrize("channels", [1, 3])
def test_numbers_and_shape_stay(channels):
    images = torch.randn(2, channels, 5, 4)
    moved = channels_last(images)
    assert torch.equal(moved, images)
    assert moved.stride() == (20 * channels, 1, 4 * channels, channels)


def test_images_that_ask_for_a_gradient_lie_as_they_are():
    images = torch.randn(2, 3, 5, 4, requires_grad=True)
    assert channels_last(images) is images


@pytest.mark.parametrize("make", [lambda: SmallCNN(4), lambda: SlimWRN((4, 8, 8), 1)])
def test_a_gradient_of_each_sample_is_that_of_the_sample_alone(make):
    torch.manual_seed(0)
    model = make().eval()
    images, labels = torch.randn(3, 1, 16, 16), torch.arange(3)
    weights = dict(model.named_parameters())

    def loss(weights, image, label):
        return F.cross_entropy(functional_call(model, weights, image[None]), label[None])

    each = vmap(grad(loss), in_dims=(None, 0, 0))(weights, images, labels)
    for row in range(3):
        model.zero_grad()
        F.cross_entropy(model(images[row : row + 1]), labels[row : row + 1]).backward()
        for name, weight in model.named_parameters():
            torch.testing.assert_close(each[name][row], weight.grad, rtol=1e-3, atol=1e-6)


def test_networks_compile_in_one_graph():
    for model in (SmallCNN(4).eval(), SlimWRN((4, 8, 8), 1).eval()):
        images = torch.randn(2, 1, 16, 16)
        compiled = torch.compile(model, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(images), model(images))
