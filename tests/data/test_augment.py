import math

import pytest
import torch

from kdlearn.data import RandomAffine, RandomCropFlip, RandomShift


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def blob(side=33):
    """A smooth spot to the right of the center."""
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, side)] * 2, indexing="ij")
    return torch.exp(-(((x - 0.4) / 0.15) ** 2) - (y / 0.15) ** 2)[None, None]


def center(images):
    """Center of mass (x, y) of each image, from -1 to 1."""
    place = torch.linspace(-1, 1, images.shape[-1])
    mass = images.sum(dim=(1, 2, 3))
    x = (images.sum(dim=(1, 2)) * place).sum(dim=1) / mass
    y = (images.sum(dim=(1, 3)) * place).sum(dim=1) / mass
    return x, y


def test_rotation_keeps_the_distance_and_stays_within_its_limit():
    turned = RandomAffine(rotation=40, scale=0, shear=0, shift=0)(
        blob().repeat(200, 1, 1, 1), generator()
    )
    x, y = center(turned)
    assert torch.allclose(x.hypot(y), torch.full_like(x, 0.4), atol=0.01)
    angles = torch.atan2(y, x) * 180 / math.pi
    assert angles.abs().max() <= 40.5 and angles.max() > 35 and angles.min() < -35


def test_scale_multiplies_distances():
    scaled = RandomAffine(rotation=0, scale=0.25, shear=0, shift=0)(
        blob().repeat(200, 1, 1, 1), generator()
    )
    ratio = center(scaled)[0] / 0.4
    assert 0.74 < ratio.min() < 0.78 and 1.22 < ratio.max() < 1.26


def test_shift_moves_by_a_fraction_of_the_side():
    moved = RandomAffine(rotation=0, scale=0, shear=0, shift=0.1)(
        blob().repeat(200, 1, 1, 1), generator()
    )
    x, y = center(moved)
    for offset in (x - 0.4, y):
        assert offset.abs().max() < 0.21 and offset.max() > 0.18 and offset.min() < -0.18


def test_shear_moves_rows_apart_and_keeps_the_area():
    sheared = RandomAffine(rotation=0, scale=0, shear=0.3, shift=0)(
        blob().transpose(2, 3).repeat(200, 1, 1, 1), generator()
    )
    x, y = center(sheared)
    assert torch.allclose(y, torch.full_like(y, 0.4), atol=0.01)
    assert 0.1 < x.abs().max() < 0.125
    assert torch.allclose(sheared.sum(dim=(1, 2, 3)), blob().sum(), rtol=0.01)


def test_a_shift_moves_whole_pixels_and_fills_with_zero():
    images = torch.arange(1.0, 37).view(1, 1, 6, 6).repeat(300, 1, 1, 1)
    moved = RandomShift(pixels=2)(images, generator())
    padded = torch.nn.functional.pad(images[0, 0], (2, 2, 2, 2))
    windows = {
        tuple(padded[i : i + 6, j : j + 6].flatten().tolist()) for i in range(5) for j in range(5)
    }
    assert {tuple(row.flatten().tolist()) for row in moved} == windows


def test_channels_move_together():
    images = torch.rand(8, 1, 12, 12).repeat(1, 3, 1, 1)
    moved = RandomShift(pixels=5)(images, generator())
    assert torch.equal(moved[:, 0], moved[:, 1]) and torch.equal(moved[:, 0], moved[:, 2])


@pytest.mark.parametrize("change", [RandomAffine(), RandomShift(3)])
def test_every_image_has_its_own_draw_and_the_generator_decides_all(change):
    images = torch.rand(1, 1, 16, 16).repeat(6, 1, 1, 1)
    state = torch.get_rng_state()
    first, again, other = (change(images, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.equal(first[0], first[1])
    assert first.shape == images.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomAffine(rotation=-1), "rotation is the largest change"),
        (lambda: RandomAffine(scale=1), "scale must be below 1"),
        (lambda: RandomShift(-1), "0 or more, got -1"),
        (lambda: RandomShift()(torch.zeros(3, 8, 8)), r"\(B, C, H, W\)"),
        (lambda: RandomAffine()(torch.zeros(1, 1, 8, 8, dtype=torch.uint8)), "float images"),
    ],
)
def test_a_wrong_argument_is_told(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_crops_are_windows_of_the_mirrored_image_and_half_are_flipped():
    images = torch.arange(36.0).view(1, 1, 6, 6).repeat(400, 1, 1, 1)
    views = RandomCropFlip(padding=2)(images, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(images[:1], [2] * 4, mode="reflect")[0, 0]
    windows = {
        tuple(side[i : i + 6, j : j + 6].flatten().tolist())
        for side in (padded,)
        for i in range(5)
        for j in range(5)
    }
    plain = sum(tuple(view.flatten().tolist()) in windows for view in views[:, 0])
    mirrored = sum(tuple(view.flip(-1).flatten().tolist()) in windows for view in views[:, 0])
    assert 150 < plain < 250 and plain + mirrored >= 400
    still = RandomCropFlip(padding=0)(images, torch.Generator().manual_seed(0))
    assert {tuple(v.flatten().tolist()) for v in still} == {
        tuple(images[0].flatten().tolist()),
        tuple(images[0].flip(-1).flatten().tolist()),
    }
    with pytest.raises(ValueError, match="padding must be 0 or more"):
        RandomCropFlip(padding=-1)


def test_a_border_wider_than_the_image_is_told():
    with pytest.raises(ValueError, match="padding must be 0 or more, got -1"):
        RandomCropFlip(-1)
    with pytest.raises(ValueError, match="padding is 8 and the images have 8 pixels"):
        RandomCropFlip(8)(torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("side", [33, 256])
def test_half_precision_rounds_what_is_read_and_not_where(dtype, side):
    images = blob(side).repeat(4, 1, 1, 1).to(dtype)
    expected = RandomAffine()(images.double(), generator())
    warped = RandomAffine()(images, generator())
    assert warped.dtype == dtype
    step = torch.finfo(dtype).eps
    torch.testing.assert_close(warped.double(), expected, rtol=step, atol=1e-4)


def test_autocast_leaves_the_places_alone():
    images = blob(256).repeat(4, 1, 1, 1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = RandomAffine()(images, generator())
    assert torch.equal(cast, RandomAffine()(images, generator()))
