"""Right solutions of same-view, written otherwise."""

import torch
from torch.nn import functional as F


def written_out(student, teacher, images, augment, generator):
    """The definition, with detach."""
    view = augment(images, generator)
    p = teacher(view).detach().softmax(1)
    gap = p.log() - student(view).log_softmax(1)
    return (p * gap).sum() / len(images)


def one_by_one(student, teacher, images, augment, generator):
    """Cross-entropy less entropy, image by image."""
    losses = []
    for view in augment(images, generator):
        with torch.no_grad():
            target = teacher(view[None]).softmax(1)
        entropy = -(target * target.log()).sum()
        losses.append(F.cross_entropy(student(view[None]), target) - entropy)
    return torch.stack(losses).mean()


RIGHT = (written_out, one_by_one)
