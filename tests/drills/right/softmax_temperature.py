"""Right solutions of softmax-temperature, written otherwise."""


def by_logarithms(logits, *, temperature):
    """Through log-probabilities."""
    largest = logits.max(-1, keepdim=True).values
    gaps = (logits - largest) / temperature
    return (gaps - gaps.exp().sum(-1, keepdim=True).log()).exp()


def maximum_first(logits, *, temperature):
    """The maximum is subtracted before the division, and is a constant."""
    powers = ((logits - logits.detach().amax(-1, keepdim=True)) / temperature).exp()
    return powers / powers.sum(dim=-1, keepdim=True)


RIGHT = (by_logarithms, maximum_first)
