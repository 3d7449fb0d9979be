"""Right solutions of generalized-jsd, written otherwise."""

import math

import torch


def entropies(student_logits, teacher_logits, *, beta):
    """The mixture's entropy minus the mean entropy."""
    log_s, log_t = (student_logits.log_softmax(-1), teacher_logits.detach().log_softmax(-1))
    log_m = torch.stack([log_t, log_s])
    log_m = torch.logsumexp(log_m + torch.tensor([[[beta]], [[1 - beta]]]).double().log(), dim=0)
    m = beta * log_t.exp() + (1 - beta) * log_s.exp()
    rest = beta * (log_t.exp() * log_t) + (1 - beta) * (log_s.exp() * log_s)
    return (rest - m * log_m).sum(-1).mean()


def constant_mixture(student_logits, teacher_logits, *, beta):
    """The mixture outside of the graph, which leaves the gradient as it is; KL by definition."""
    log_s = student_logits - student_logits.logsumexp(1, keepdim=True)
    log_t = teacher_logits.detach() - teacher_logits.detach().logsumexp(1, keepdim=True)
    with torch.no_grad():
        if beta in (0, 1):
            log_m = log_t if beta else log_s.clone()
        else:
            log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
    total = beta * log_t.exp() * (log_t - log_m) + (1 - beta) * log_s.exp() * (log_s - log_m)
    return total.sum() / len(total)


RIGHT = (entropies, constant_mixture)
