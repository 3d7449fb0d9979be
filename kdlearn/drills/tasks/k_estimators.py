"""Drill: three estimators of a KL divergence, their values and what their gradients estimate."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def kl_estimators(
    student_logits: Tensor, teacher_logits: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return for "k1", "k2" and "k3" the expected value and the expected gradient.

    Tokens are drawn from the student q; all V of them are gone through in place of drawing. With r
    = log p - log q of a token, p the teacher's probability: k1 = -r, k2 = r² / 2, k3 = exp(r) - 1 -
    r. Expected gradient: the mean, over tokens drawn from q, of the gradient that autograd gives
    for the estimator of a token; shape (V,), with respect to the student's logits.
    student_logits, teacher_logits: shape (V,). Neither is changed nor needed in a graph afterwards.
    """
    logits = student_logits.detach().requires_grad_()
    log_q = F.log_softmax(logits, dim=0)
    r = F.log_softmax(teacher_logits.detach(), dim=0) - log_q
    found = {}
    for name, k in {"k1": -r, "k2": r.square() / 2, "k3": r.expm1() - r}.items():
        mean = (log_q.exp().detach() * k).sum()
        (gradient,) = torch.autograd.grad(mean, logits, retain_graph=True)
        found[name] = (mean.detach(), gradient)
    return found


def observe(case: Case, result: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Values and gradients by name."""
    return {
        f"{what} of {name}": part
        for name, parts in result.items()
        for what, part in zip(("value", "gradient"), parts, strict=True)
    }


def example() -> Case:
    """Three tokens."""
    student = torch.tensor([1.0, 0.0, 2.0], dtype=torch.float64)
    return {"student_logits": student, "teacher_logits": student.new_tensor([2.0, 1.0, -1.0])}


def cases(generator: Generator) -> list[Case]:
    """Vocabularies of several sizes."""
    return [
        {
            "student_logits": draws.normal(generator, vocabulary),
            "teacher_logits": draws.normal(generator, vocabulary, scale=1.5),
        }
        for vocabulary in (5, 11, 4, 7)
    ]


def edges() -> list[Edge]:
    """Two equal sides, two tokens, a token that the student hardly says, a student in a graph."""
    case = example()
    student, teacher = case["student_logits"], case["teacher_logits"]
    rare = student.new_tensor([-800.0, 0.0, 1.0])
    return [
        Edge("a student that equals its teacher", case | {"teacher_logits": student.clone()}),
        Edge("two tokens", {name: value[:2] for name, value in case.items()}),
        Edge(
            "a token that neither ever says",
            {"student_logits": rare, "teacher_logits": rare.flip(0).roll(1)},
            "Its probability rounds to 0: log_softmax keeps the logarithm.",
        ),
        Edge("float32", {"student_logits": student.float(), "teacher_logits": teacher.float()}),
    ]


def family(
    wrong: Wrong, student_logits: Tensor, teacher_logits: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """The estimators with their switches."""
    logits = student_logits.detach().requires_grad_()
    log_q, log_p = logits.log_softmax(0), teacher_logits.detach().log_softmax(0)
    if "log-of-softmax" in wrong:
        log_q, log_p = logits.softmax(0).log(), teacher_logits.detach().softmax(0).log()
    if "softmax-missing" in wrong:
        log_q, log_p = logits, teacher_logits.detach()
    q = log_p.exp() if "drawn-from-teacher" in wrong else log_q.exp()
    if "uniform" in wrong:
        q = torch.full_like(q, 1 / len(q))
    weight = q if "weight-differentiated" in wrong else q.detach()
    r = log_p - log_q
    one = -r if "ratio-inverted" in wrong else r
    third = -r if {"ratio-inverted", "third-inverted"} & wrong else r
    first = r if "first-sign" in wrong else -one
    made = {
        "k1": first.abs() if "first-absolute" in wrong else first,
        "k2": one.square() / (1 if "half-missing" in wrong else 2),
        "k3": third.exp() - 1 - third,
    }
    if "second-not-squared" in wrong:
        made["k2"] = r.abs() / 2
    if "one-missing" in wrong:
        made["k3"] = third.exp() - third
    if "log-missing" in wrong:
        made["k3"] = third.exp() - 1
    if "third-plus" in wrong:
        made["k3"] = third.exp() - 1 + third
    found, before = {}, torch.zeros_like(logits)
    leaf = log_q if "to-logarithms" in wrong else logits
    for name, k in made.items():
        mean = (weight * k).mean() if "averaged" in wrong else (weight * k).sum()
        (gradient,) = torch.autograd.grad(mean, leaf, retain_graph=True)
        if "added-up" in wrong:
            gradient = before = before + gradient
        if "descent" in wrong:
            gradient = -gradient
        found[name] = (mean.detach(), gradient.detach())
    return found


drill = Drill(
    id="k-estimators",
    title="k1, k2 and k3: values and gradients",
    task=(
        "Three numbers are in use that estimate $\\mathrm{KL}(p_s \\,\\|\\, p_t)$ from one token "
        "that the student drew. Write a function that says, without drawing, what each of them "
        "gives on average, and what a training step gets on average that calls backward() on it. "
        "Then say what each gradient is the gradient of."
    ),
    minutes=12,
    level="hard",
    hints=(
        "An expectation over drawn tokens is a sum over the vocabulary. With which weights?",
        "A program that has drawn a token differentiates the estimator of that token, and nothing "
        "of how it was drawn. What does that mean for the weights of your sum?",
        "Three gradients from one graph: what does autograd do with the graph after the first, and "
        "what would .grad hold after the third?",
    ),
    explanation=(
        "O(V). The weights are the student's probabilities, detached: drawing is not "
        "differentiated. Values: k1 and k3 give the KL exactly, since E[exp(r)] = 1; k2 does not, "
        "and is near it where r is small. Gradients: that of k1 is $\\mathrm{E}[\\nabla \\log q] = "
        "0$ for every student, so k1 as a loss is noise. That of k2 is $-\\mathrm{E}[\\, r \\nabla "
        "\\log q \\,]$, just the gradient of the reverse KL, though its value is biased. That of "
        "k3 is $q - p$, the gradient of the forward KL. So an estimator without bias can have a "
        "gradient with bias, and the other way round. In a reward, behind a stop-gradient and in "
        "front of log q, k1 is right; as a loss it is not. 'k3 has the lower variance' holds near "
        "the teacher, where k1 changes its sign and k3 does not; far from it exp(r) can be "
        "heavy-tailed. The interviewer listens for: the value is not the gradient; which direction "
        "each pulls. Source: [Schulman, Approximating KL Divergence, "
        "2020](cite:schulman2020approximating), for the values."
    ),
    reference=kl_estimators,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # weights
        - weight-differentiated: the values are right, the gradients are those of the exact sums:
          the student's probabilities in front are differentiated too. A program that drew its
          tokens does not differentiate the drawing: detach the weights.
        - drawn-from-teacher: the tokens are weighted with the teacher's probabilities: it is the
          student who draws.
        - uniform: all tokens weigh the same: they are drawn from the student.
        - averaged: the sum over the vocabulary is divided by V = {V}: the weights sum to 1 already.
        # ratio
        - ratio-inverted: r is log q - log p in all three: k1 then has the wrong sign, and k3
          estimates no KL over the student's draws.
        # k1
        - first-sign: k1 has the wrong sign: -r = log q - log p is what is positive on average.
        - first-absolute: k1 is made positive with abs(): the log-ratios have to cancel for their
          mean to be the KL.
        # k2
        - half-missing: k2 is twice too large: it is half the squared log-ratio.
        - second-not-squared: k2 is half the size of the log-ratio, not half its square.
        # k3
        - third-inverted: the ratio of k3 is upside down: exp(r) is p / q, teacher over student, for
          tokens drawn from the student. Only then is E[exp(r)] = 1.
        - one-missing: the 1 of k3 is missing: its value is too large by 1, its gradient is right.
        - log-missing: the logarithm of k3 is missing: exp(r) - 1 alone is 0 on average; -r is what
          makes it the KL.
        - third-plus: k3 has + r for - r: it is the logarithm's tangent from below, exp(r) - 1 - r,
          never negative.
        # gradient
        - to-logarithms: the gradients are taken with respect to the log-probabilities: asked for is
          the one with respect to the logits.
        - added-up: your gradients add up: the second holds the first, the third both. backward()
          adds to .grad: use torch.autograd.grad, or clear .grad between.
        - descent: the gradients have the other sign: asked for is the gradient, not the step.
        # softmax
        - softmax-missing: the logits are used as log-probabilities: log_softmax is missing.
        - log-of-softmax: softmax(...).log() is -inf as soon as a probability underflows to 0: take
          log_softmax.
        """
    ),
    sizes=lambda case: {"V": len(case["student_logits"])},
    observe=observe,
)
