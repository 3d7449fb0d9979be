"""Right solutions of on-policy, written otherwise."""

import torch
from torch.nn import functional as F


def scored_while_sampling(student, teacher, prompts, *, new_tokens, optimizer, generator):
    """Keep the logits from which each token was drawn; causal models give the same again."""
    optimizer.zero_grad()
    teacher.eval().requires_grad_(False)
    tokens, losses = (prompts.clone(), [])
    for _ in range(new_tokens):
        log_q = student(tokens)[:, -1].log_softmax(-1)
        log_p = teacher(tokens)[:, -1].log_softmax(-1)
        losses.append(F.kl_div(log_p, log_q, reduction="batchmean", log_target=True))
        drawn = torch.multinomial(log_q.detach().exp(), 1, generator=generator)
        tokens = torch.hstack([tokens, drawn])
    loss = torch.stack(losses).mean()
    loss.backward()
    optimizer.step()
    return (tokens, loss.detach())


def masked_positions(student, teacher, prompts, *, new_tokens, optimizer, generator):
    """A buffer that is filled, a mask of positions, and the teacher's mode given back."""
    batch, prompt = prompts.shape
    tokens = prompts.new_zeros(batch, prompt + new_tokens)
    tokens[:, :prompt] = prompts
    mode = teacher.training
    teacher.train(False)
    with torch.no_grad():
        for end in range(prompt, prompt + new_tokens):
            probabilities = torch.softmax(student(tokens[:, :end])[:, end - 1], dim=1)
            tokens[:, end : end + 1] = torch.multinomial(probabilities, 1, generator=generator)
        target = teacher(tokens[:, :-1])
    teacher.train(mode)
    logits = student(tokens[:, :-1])
    written = (torch.arange(prompt + new_tokens - 1) >= prompt - 1).expand(batch, -1)
    q = torch.distributions.Categorical(logits=logits[written])
    p = torch.distributions.Categorical(logits=target[written])
    loss = torch.distributions.kl_divergence(q, p).sum() / (batch * new_tokens)
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return (tokens, loss.detach())


RIGHT = (scored_while_sampling, masked_positions)
