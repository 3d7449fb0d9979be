from importlib import import_module

import numpy as np
import pytest
import torch
from scipy.interpolate import interp1d
from scipy.ndimage import gaussian_filter

from kdlearn.data import mnist1d

MODULE = import_module("kdlearn.data.mnist1d")  # the package has a function of that name


def silent(monkeypatch):
    for name in ("BLURRED_NOISE", "NOISE", "MEAN"):
        monkeypatch.setattr(MODULE, name, 0.0)
    monkeypatch.setattr(MODULE, "SPREAD", 1.0)


def stretched(points, size):
    return interp1d(np.linspace(0, 1, len(points)), points)(np.linspace(0, 1, size))


def test_a_signal_without_noise_is_the_glyph_as_the_paper_describes_it(monkeypatch):
    silent(monkeypatch)
    for name, value in {"SIZE": 0.0, "SHEAR": 0.0, "SHIFT": 1, "PADDING": (40, 40)}.items():
        monkeypatch.setattr(MODULE, name, value)
    data = mnist1d(train=50, validation=1, test=1).train
    for signal, label in zip(data.images[:, 0].numpy(), data.labels.tolist(), strict=True):
        heights = np.array(MODULE.GLYPHS[label])
        glyph = (heights - heights.mean()) / heights.std()
        padded = np.concatenate([(glyph - glyph[0]) / 6, np.zeros(40)])
        expected = stretched(stretched(padded, 72), 40)
        np.testing.assert_allclose(signal, expected, atol=1e-6)


def test_size_and_slope_lie_in_the_ranges_of_the_paper(monkeypatch):
    silent(monkeypatch)
    monkeypatch.setattr(MODULE, "SHIFT", 1)
    monkeypatch.setattr(MODULE, "PADDING", (60, 60))
    data = mnist1d(train=3000, validation=1, test=1).train
    # The last 30 points hold zeros alone, so there one sees the slope that was taken off.
    slopes = (data.images[:, 0, -1] - data.images[:, 0, -30]) * 39 / 29
    assert slopes.abs().max() < 0.3751 and slopes.abs().max() > 0.37
    straight = data.images[:, 0] - slopes[:, None] * torch.linspace(-0.5, 0.5, 40)
    highest = MODULE._read(
        torch.nn.functional.pad(MODULE.glyphs(), (0, 60)), torch.linspace(0, 71, 40).expand(10, -1)
    ).abs()
    sizes = straight.abs().amax(1) / highest.amax(1)[data.labels]
    assert 0.79 < sizes.min() < 0.81 and 1.19 < sizes.max() < 1.21


def test_noise_is_blurred_where_there_is_no_glyph(monkeypatch):
    for name, value in {"NOISE": 0.0, "SHEAR": 0.0, "SHIFT": 1, "PADDING": (60, 60)}.items():
        monkeypatch.setattr(MODULE, name, value)
    data = mnist1d(train=4000, validation=1, test=1).train
    got = data.images[:, 0, 10:] * MODULE.SPREAD + MODULE.MEAN
    white = 0.25 * np.random.default_rng(0).standard_normal((4000, 72))
    blurred = gaussian_filter(white, sigma=(0, 2))
    expected = interp1d(np.arange(72), blurred, axis=1)(np.linspace(0, 71, 40))[:, 10:]
    np.testing.assert_allclose(got.std(0), expected.std(0), rtol=0.1)
    ours, theirs = (np.corrcoef(rows.T)[10, 9:12] for rows in (got.numpy(), expected))
    np.testing.assert_allclose(ours, theirs, atol=0.06)


def test_the_glyph_starts_at_any_of_the_first_48_points(monkeypatch):
    silent(monkeypatch)
    monkeypatch.setattr(MODULE, "SHEAR", 0.0)
    data = mnist1d(train=4000, validation=1, test=1).train
    inked = (data.images[:, 0].abs() > 1e-3).float().mean(0)
    # The longest glyph covers 12/48 of 72 points, so from 47 it reaches 65, or 36 of 40.
    assert inked[1:35].min() > 0 and inked[10:25].min() > 0.25
    assert inked[37:].max() == 0


def test_signals_have_mean_0_and_standard_deviation_1():
    images = mnist1d(train=20_000).train.images
    assert images.mean() == pytest.approx(0, abs=0.02) and images.std() == pytest.approx(
        1, abs=0.02
    )


def test_the_same_seed_gives_the_same_signals_and_no_split_changes_another():
    state = torch.get_rng_state()
    data, again = mnist1d(train=60, seed=3), mnist1d(train=90, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(data.test.images, again.test.images)
    assert torch.equal(data.validation.images, again.validation.images)
    assert not torch.equal(mnist1d(train=60, seed=4).train.images, data.train.images)
    rows = torch.cat([data.train.base, data.validation.base, data.test.base])
    assert torch.equal(rows, torch.arange(2060))


def test_an_empty_split_is_refused():
    with pytest.raises(ValueError, match="validation"):
        mnist1d(validation=0)
