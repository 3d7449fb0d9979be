import pytest
import torch

from kdlearn.show.pictures import as_boxes, as_images, as_maps, finite


def test_images_that_leave_the_unit_interval_are_scaled_and_others_are_not():
    images = torch.tensor([[[0.0, 3.0], [1.0, 2.0]]])
    assert torch.equal(as_images(images), images[:, None].double() / 3)
    assert torch.equal(as_images(images / 4), images[:, None].double() / 4)
    assert as_images(torch.ones(2, 3, 4, 4)).shape == (2, 3, 4, 4)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: finite([], "logits"), r"logits are empty, shape \(0,\)"),
        (lambda: finite([float("inf")], "logits"), "hold NaN or infinity"),
        (lambda: as_images(torch.ones(2, 2, 4, 4)), r"got \(2, 2, 4, 4\): one image needs"),
        (lambda: as_images(torch.ones(2, 4, 4), count=3), "got 2 images for 3 samples"),
        (lambda: as_maps({}, 2), "maps are empty"),
        (lambda: as_maps({"student": torch.ones(3, 4, 4)}, 2), r"of shape \(2, h, w\), got \(3,"),
        (lambda: as_maps({"student": -torch.ones(2, 4, 4)}, 2), "must not be below 0"),
        (lambda: as_boxes(torch.tensor([[0.0, 0.0, 2.0, 1.0]]), 1), "0 <= x0 < x1 <= 1"),
    ],
)
def test_what_cannot_be_drawn_is_told(make, said):
    with pytest.raises(ValueError, match=said):
        make()
