import pytest
import torch

from kdlearn.experiments.calibration import best_temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_the_temperature_that_made_the_labels_is_found_again(temperature):
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(8_000, 5, generator=generator)
    said = (logits / temperature).softmax(1)
    labels = torch.multinomial(said, 1, generator=generator)[:, 0]
    assert best_temperature(logits, labels) == pytest.approx(temperature, rel=0.05)
    assert best_temperature(logits / temperature, labels) == pytest.approx(1, rel=0.05)
