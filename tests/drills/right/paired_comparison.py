"""Right solutions of paired-comparison, written otherwise."""

import torch


def by_sums(a, b, *, t_quantile):
    """Sums of squares, in plain Python."""
    values = [float(x) - float(y) for x, y in zip(a, b, strict=True)]
    n = len(values)
    mean = sum(values) / n
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    margin = t_quantile * (variance / n) ** 0.5
    verdict = "undecided"
    if abs(mean) > margin:
        verdict = "a" if mean > 0 else "b"
    return {"mean": mean, "low": mean - margin, "high": mean + margin, "verdict": verdict}


def by_variance(a, b, *, t_quantile):
    """The variance of a difference from variances and covariance."""
    both = torch.stack([a, b]).cov()
    error = ((both[0, 0] + both[1, 1] - 2 * both[0, 1]) / len(a)).sqrt()
    mean = a.mean() - b.mean()
    low, high = (mean - t_quantile * error, mean + t_quantile * error)
    verdict = "undecided" if low <= 0 <= high else "a" if mean > 0 else "b"
    return {"mean": mean.item(), "low": low.item(), "high": high.item(), "verdict": verdict}


RIGHT = (by_sums, by_variance)
