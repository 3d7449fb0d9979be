"""Right solutions of opd-step, written otherwise."""

import torch


def importance_weight(student_logits, tokens, teacher_log_probs, written):
    """The weight q / q_old of a student that has not moved: 1 in value, with a gradient."""
    rows, places = written.nonzero(as_tuple=True)
    logits = student_logits[rows, places - 1]
    drawn = tokens[rows, places]
    log_q = logits[torch.arange(len(drawn)), drawn] - logits.logsumexp(-1)
    advantage = teacher_log_probs[rows, places].detach() - log_q.detach()
    return -((log_q - log_q.detach()).exp() * advantage).mean()


def token_by_token(student_logits, tokens, teacher_log_probs, written):
    """The value and the surrogate apart: the surrogate's own value is taken away again."""
    value, surrogate = 0.0, 0.0
    for row, place in written.nonzero().tolist():
        log_q = student_logits[row, place - 1].log_softmax(0)[tokens[row, place]]
        ratio = log_q.item() - teacher_log_probs[row, place].item()
        value, surrogate = value + ratio, surrogate + ratio * log_q
    return (value + surrogate - surrogate.detach()) / written.sum()


RIGHT = (importance_weight, token_by_token)
