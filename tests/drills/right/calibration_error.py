"""Right solutions of calibration-error, written otherwise."""

import torch


def bin_by_bin(probabilities, labels, *, bins):
    """The definition, one bin after the other."""
    confidence = probabilities.amax(dim=1)
    right = probabilities.argmax(dim=1) == labels
    error = 0.0
    for m in range(bins):
        inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
        if inside.any():
            gap = right[inside].double().mean() - confidence[inside].double().mean()
            error += inside.double().mean().item() * abs(gap.item())
    return error


def between_borders(probabilities, labels, *, bins):
    """The bins from a search among their upper borders, their sums in Python."""
    confidence, predicted = probabilities.double().max(dim=1)
    borders = torch.arange(1, bins + 1, dtype=torch.float64) / bins
    sums = [0.0] * bins
    numbers = torch.searchsorted(borders, confidence).tolist()
    hits = (predicted == labels).tolist()
    for number, hit, sure in zip(numbers, hits, confidence.tolist(), strict=True):
        sums[number] += hit - sure
    return sum(abs(one) for one in sums) / len(labels)


RIGHT = (bin_by_bin, between_borders)
