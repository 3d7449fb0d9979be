"""Right solutions of speculative-acceptance, written otherwise."""

import torch
from torch.nn import functional as F


def in_order(target, draft, tokens, uniforms):
    """One token after the other; the first refusal ends it."""
    for place, token in enumerate(tokens.tolist()):
        if uniforms[place] * draft[place, token] >= target[place, token]:
            left = torch.relu(target[place] - draft[place])
            return place, left / left.sum()
    return len(tokens), target[-1]


def padded(target, draft, tokens, uniforms):
    """A draft of nothing after the last: the positive part is then the target itself."""
    p = target[:-1].gather(1, tokens[:, None])[:, 0]
    q = draft.gather(1, tokens[:, None])[:, 0]
    refused = (uniforms >= (p / q).clamp(max=1)).nonzero().flatten().tolist()
    kept = refused[0] if refused else len(tokens)
    left = target[kept] - torch.minimum(target[kept], F.pad(draft, (0, 0, 0, 1))[kept])
    return torch.tensor(kept), F.normalize(left, p=1, dim=0)


RIGHT = (in_order, padded)
