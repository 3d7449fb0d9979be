"""Right solutions of loss-grader, written otherwise."""

import torch

from kdlearn.drills.grader import draws


def with_backward(candidate, reference, generator):
    """Gradients by backward, as they are in training."""
    for batch, classes, temperature in ((40, 2, 3.0), (1, 10, 1.0), (5, 6, 8.0)):
        logits = draws.normal(generator, 2, batch, classes)
        seen = []
        for loss in (candidate, reference):
            s, t = (side.clone().requires_grad_() for side in logits)
            value = loss(s, t, temperature)
            if not value.requires_grad:
                return False
            value.backward()
            seen.append((value.item(), s.grad, t.grad))
        if seen[0][2] is not None or abs(seen[0][0] - seen[1][0]) > 1e-06 * abs(seen[1][0]):
            return False
        if (seen[0][1] - seen[1][1]).abs().max() > 1e-06 * seen[1][1].abs().max():
            return False
    return True


def parts(candidate, reference, generator):
    """Sums of squares, and all parts of a test in another order."""
    for batch, classes, temperature in ((64, 4, 6.0), (3, 9, 1.0), (2, 2, 2.0)):
        s, t = (draws.normal(generator, batch, classes).requires_grad_() for _ in range(2))
        one, other = candidate(s, t, temperature), reference(s, t, temperature)
        if not one.requires_grad:
            return False
        mine, leak = torch.autograd.grad(one, (s, t), allow_unused=True)
        theirs, _ = torch.autograd.grad(other, (s, t), allow_unused=True)
        if leak is not None or (mine - theirs).square().sum() > 1e-12 * theirs.square().sum():
            return False
        if (one - other).square() > 1e-12 * other.square():
            return False
    return True


RIGHT = (with_backward, parts)
