"""Right solutions of train-step, written otherwise."""

import torch
from torch.nn import functional as F


def in_other_words(student, teacher, images, labels, optimizer, *, temperature, weight):
    """The definition of KL, the gradient cleared first, and the teacher's mode given back."""
    optimizer.zero_grad()
    mode = teacher.training
    student.train()
    teacher.eval()
    p = (teacher(images).detach() / temperature).softmax(1)
    teacher.train(mode)
    logits = student(images)
    log_q = (logits / temperature).log_softmax(1)
    soft = (p * (p.log() - log_q)).sum(1).mean() * temperature**2
    loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * soft
    loss.backward()
    optimizer.step()
    return loss.item()


def with_grad(student, teacher, images, labels, optimizer, *, temperature, weight):
    """torch.autograd.grad, and cross-entropy less entropy."""
    student.train(True)
    with torch.inference_mode():
        answers = teacher.train(False)(images)
    target = (answers.clone() / temperature).softmax(1)
    logits = student(images)
    entropy = -(target * target.log()).sum(1).mean()
    soft = F.cross_entropy(logits / temperature, target.clone()) - entropy
    loss = (1 - weight) * F.cross_entropy(logits, labels) + weight * temperature**2 * soft
    parameters = list(student.parameters())
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
    return float(loss.detach())


RIGHT = (in_other_words, with_grad)
