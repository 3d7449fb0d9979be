"""Right solutions of span-alignment, written otherwise."""

import torch


def two_pointers(student_tokens, teacher_tokens, student_log_probs, teacher_log_probs):
    """The side that is behind takes its next token; a span ends where the two are level."""
    ours, theirs, spans = 0, 0, []
    i = j = start = other = 0
    while i < len(student_tokens):
        if ours <= theirs:
            ours += len(student_tokens[i])
            i += 1
        while theirs < ours:
            theirs += len(teacher_tokens[j])
            j += 1
        if ours == theirs:
            spans.append((student_log_probs[start:i].sum(), teacher_log_probs[other:j].sum()))
            start, other = i, j
    one, two = zip(*spans, strict=True)
    return torch.stack(one), torch.stack(two).detach()


def growing_text(student_tokens, teacher_tokens, student_log_probs, teacher_log_probs):
    """Running sums, read at the borders that both have, and their differences."""

    def running(tokens, log_probs):
        ends, place = [], 0
        for token in tokens:
            place += len(token)
            ends.append(place)
        return dict(zip(ends, log_probs.cumsum(0), strict=True))

    one = running(student_tokens, student_log_probs)
    two = running(teacher_tokens, teacher_log_probs.detach())
    common = sorted(one.keys() & two.keys())
    sums = [torch.stack([side[end] for end in common]) for side in (one, two)]
    return tuple(torch.diff(side, prepend=side.new_zeros(1)) for side in sums)


RIGHT = (two_pointers, growing_text)
