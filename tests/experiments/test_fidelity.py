from dataclasses import replace

import pytest
import torch
from scipy import ndimage

from kdlearn.experiments import fidelity
from kdlearn.experiments.fidelity import RECIPE, TWIN, corrupted, same_error

IMAGES = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def test_a_quarter_turn_moves_the_pixels_and_the_sides_take_turns():
    turned = corrupted(IMAGES, "rotation", 90.0, seed=0)
    for image, original, quarters in zip(turned, IMAGES, (1, -1, 1, -1), strict=True):
        torch.testing.assert_close(image, original.rot90(quarters, (-2, -1)), atol=1e-4, rtol=0)


def test_blur_is_a_gaussian():
    blurred = corrupted(IMAGES, "blur", 1.0, seed=0)
    expected = ndimage.gaussian_filter(IMAGES[2, 0].numpy(), 1.0, mode="constant", truncate=4)
    torch.testing.assert_close(blurred[2, 0], torch.from_numpy(expected), atol=1e-5, rtol=1e-5)


def test_noise_has_the_strength_that_was_asked_for():
    images = torch.zeros(500, 1, 16, 16)
    assert corrupted(images, "noise", 0.2, seed=3).std().item() == pytest.approx(0.2, rel=0.02)


def test_a_teacher_makes_all_of_its_own_errors():
    logits = torch.randn(50, 4, generator=torch.Generator().manual_seed(1))
    assert same_error(logits, logits, torch.zeros(50, dtype=torch.long)) == 1


def test_the_teacher_is_faithful_to_itself_and_the_other_one_teaches_nobody():
    short = replace(RECIPE, pool=300, images=50, teacher_epochs=1)
    asked = {"recipe": short, "methods": [TWIN], "on": "validation"}
    own, twin = fidelity.run_seed(0, **asked)
    assert own["agreement"] == own["same_error"] == own["agreement_blur_2"] == 100
    assert own["cka_group2"] == pytest.approx(1, abs=1e-4)
    assert "agreement_other" not in twin
    assert twin["agreement"] == own["agreement_other"] < 100
