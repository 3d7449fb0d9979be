import torch

from kdlearn.data import Split
from kdlearn.experiments.shortcut import canvases


def drawn(shortcut):
    labels = torch.arange(10).repeat(20)
    black = Split(torch.zeros(200, 1, 28, 28), labels, torch.arange(200))
    generator = torch.Generator().manual_seed(0)
    split = canvases(black, 1, shortcut=shortcut, generator=generator)
    ink = split.images.clamp(min=0.5).sum((1, 2, 3))  # of the texture alone, digits are black
    return split.labels, ink.round().int()


def test_a_texture_tells_the_class_where_there_is_a_shortcut_and_else_says_nothing():
    labels, ink = drawn(shortcut=True)
    for label in range(10):
        amounts = ink[labels == label]
        assert (amounts - amounts.median()).abs().max() <= 2  # one texture, and the noise
    labels, ink = drawn(shortcut=False)
    assert all((ink[labels == label].max() - ink[labels == label].min()) > 3 for label in range(10))


def test_a_texture_never_lies_on_the_digit():
    white = Split(torch.ones(300, 1, 28, 28), torch.zeros(300).long(), torch.arange(300))
    split = canvases(white, 1, shortcut=True, generator=torch.Generator().manual_seed(1))
    bright = (split.images > 0.5).float().sum((1, 2, 3))
    digit = 14 * 14
    texture = bright.median() - digit
    # A digit that a texture had covered would have lost as many pixels as the texture has dark.
    assert texture > 3 and (bright - digit - texture).abs().max() <= 2
