"""Drill: the loss of on-policy distillation on drawn tokens, and where its stop-gradient stands."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import TOKENS, chosen, token_mean
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def opd_loss(
    student_logits: Tensor, tokens: Tensor, teacher_log_probs: Tensor, written: Tensor
) -> Tensor:
    """Return one number to log and to train by, a mean over the N tokens that the student wrote.

    Value: the mean of the log-ratios log q(token) - log p(token), q the student's probability, p
    the teacher's. Gradient: the mean of log-ratio · gradient of log q(token), the log-ratio held
    constant (REINFORCE, for each token by itself).
    student_logits: shape (B, L, V), position i predicting token i + 1.
    tokens: torch.int64, shape (B, L): prompt, what the student drew from q, padding.
    teacher_log_probs: shape (B, L), log p of each token, entry i belonging to token i. A constant.
    written: torch.bool, shape (B, L), True at the tokens that the student wrote; the first never
    is. What teacher_log_probs holds at the others must not matter: it may be NaN.
    """
    log_q = F.log_softmax(student_logits[:, :-1], dim=-1)
    log_q = log_q.gather(-1, tokens[:, 1:, None]).squeeze(-1)[written[:, 1:]]
    log_ratio = (log_q - teacher_log_probs[:, 1:][written[:, 1:]]).detach()
    return (log_ratio * (1 + log_q - log_q.detach())).mean()


def example() -> Case:
    """Two sequences of three tokens, three of which the student wrote, and a vocabulary of two."""
    logits = [[[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]], [[0.0, 3.0], [2.0, 0.0], [0.0, 1.0]]]
    probabilities = torch.tensor([[0.5, 0.75, 0.5], [0.5, 0.25, 0.5]], dtype=torch.float64)
    return {
        "student_logits": torch.tensor(logits, dtype=torch.float64),
        "tokens": torch.tensor([[0, 0, 1], [1, 1, 0]]),
        "teacher_log_probs": probabilities.log(),
        "written": torch.tensor([[False, True, True], [False, True, False]]),
    }


def cases(generator: Generator) -> list[Case]:
    """Prompts and answers of different lengths, and log-ratios of both signs."""
    made: list[Case] = []
    for batch, length, vocabulary in ((4, 7, 5), (2, 5, 9), (3, 9, 4), (5, 6, 7), (6, 4, 3)):
        start = draws.whole(generator, 1, length // 2, batch, 1)
        end = start + 1 + draws.whole(generator, 0, length // 2, batch, 1)
        end[0] = length
        position = torch.arange(length)
        teacher = draws.normal(generator, batch, length, vocabulary, scale=1.5).log_softmax(-1)
        tokens = draws.whole(generator, 0, vocabulary - 1, batch, length)
        made.append(
            {
                "student_logits": draws.normal(generator, batch, length, vocabulary, scale=1.5),
                "tokens": tokens,
                "teacher_log_probs": teacher.gather(-1, tokens[..., None]).squeeze(-1),
                "written": (position >= start) & (position < end),
            }
        )
    return made


def edges() -> list[Edge]:
    """A teacher that was not asked about the prompt; one token; a student that underflows."""
    case = example()
    logits, log_probs, written = (
        case[name] for name in ("student_logits", "teacher_log_probs", "written")
    )
    one = torch.zeros_like(written)
    one[0, 1] = True
    return [
        Edge(
            "a teacher that gives NaN for the prompt",
            case | {"teacher_log_probs": log_probs.masked_fill(~written, torch.nan)},
            "Select the written tokens before anything is computed of them.",
        ),
        Edge("one written token", case | {"written": one}),
        Edge("one sequence", {name: value[:1] for name, value in case.items()}),
        Edge(
            "logits of 1,000",
            case | {"student_logits": 1000 * logits},
            "The drawn token's probability rounds to 0 there: log_softmax, then gather.",
        ),
        Edge(
            "float32",
            case | {"student_logits": logits.float(), "teacher_log_probs": log_probs.float()},
        ),
    ]


def family(
    wrong: Wrong, student_logits: Tensor, tokens: Tensor, teacher: Tensor, written: Tensor
) -> Tensor:
    """The loss with its switches."""
    logits, drawn, log_p, mask = (
        student_logits[:, :-1],
        tokens[:, 1:],
        teacher[:, 1:],
        written[:, 1:],
    )
    if "not-shifted" in wrong:
        logits = student_logits[:, 1:]
    if "teacher-late" in wrong:
        log_p = teacher[:, :-1]
    if "mask-late" in wrong:
        mask = written[:, :-1]
    if "every-token" in wrong:
        mask = torch.ones_like(mask)
    if "own-argmax" in wrong:
        drawn = logits.argmax(-1)
    log = logits.log_softmax(1 if "over-positions" in wrong else -1)
    if "log-of-softmax" in wrong:
        log = logits.softmax(-1).log()
    log_q = log.gather(-1, drawn[..., None]).squeeze(-1)
    if "logits-for-logarithms" in wrong:
        log_q = logits.gather(-1, drawn[..., None]).squeeze(-1)
    log_p = log_p.detach()
    if "nan-times-zero" in wrong:
        spoiled = 0 * log_p.sum()
        return token_mean(wrong, _terms(wrong, log_q, log_p, mask)[mask], mask) + spoiled
    # NaN where the student did not write would spoil the gradient of what it wrote.
    terms = _terms(wrong, log_q, log_p.masked_fill(~mask, 0.0), mask)
    return token_mean(wrong, terms[mask], mask)


def _terms(wrong: Wrong, log_q: Tensor, log_p: Tensor, mask: Tensor) -> Tensor:
    """One term for each token."""
    ratio = log_q - log_p
    if "probability-gap" in wrong:
        ratio = log_q.exp() - log_p.exp()
    if "teacher-missing" in wrong:
        ratio = -log_q
    if "sign" in wrong:
        ratio = -ratio
    if "clamped" in wrong:
        ratio = ratio.clamp(min=0)
    if "absolute" in wrong:
        ratio = ratio.abs()
    if "weighted-twice" in wrong:
        ratio = log_q.exp() * ratio
    weight = ratio.detach()
    value = weight
    if {"mean-subtracted", "standardized"} & wrong:
        weight = weight - weight[mask].mean()
    if "standardized" in wrong and mask.sum() > 1:
        weight = weight / (weight[mask].std() + 1e-8)
    if "to-go" in wrong:
        weight = (weight * mask).flip(1).cumsum(1).flip(1)
    one = log_q - log_q.detach()
    made = {
        "differentiated": lambda: ratio,
        "product-differentiated": lambda: ratio * log_q,
        "other-factor-detached": lambda: ratio * log_q.detach(),
        "surrogate-alone": lambda: weight * log_q,
        "no-gradient": lambda: value,
        "half-square": lambda: ratio.square() / 2,
        "third": lambda: (-ratio).exp() - 1 + ratio,
        "gradient-sign": lambda: value - weight * one,
    }
    chosen = next((made[name] for name in made if name in wrong), None)
    return value + weight * one if chosen is None else chosen()


drill = Drill(
    id="opd-step",
    title="On-policy distillation on drawn tokens",
    task=(
        "The student has written; the teacher, on another machine, was asked for one number per "
        "token: its log-probability of what the student drew. Write the loss of this step. Its "
        "value is the estimate of $\\mathrm{KL}(p_s \\,\\|\\, p_t)$ that you log, its gradient is "
        "the one that lowers it. Where does the stop-gradient stand?"
    ),
    minutes=12,
    level="hard",
    hints=(
        "Line up four things first: which position's logits gave token i, and which entry of the "
        "teacher and of the mask belongs to it?",
        "Differentiate the log-ratio itself: what is the mean of the gradient of log q over tokens "
        "that are drawn from q? What has to multiply that gradient instead, and may it be "
        "differentiated?",
        "Something that is 0 in value can still carry a gradient: subtract from a tensor what has "
        "its value and no graph.",
    ),
    explanation=(
        "One softmax of the student, O(NV), and N numbers from the teacher, where the KL over the "
        "whole vocabulary needs N · V; the price is variance. The gradient of an expectation over "
        "the student's own draws is $\\mathrm{E}[\\, r \\, \\nabla \\log q \\,]$ with the "
        "log-ratio $r = \\log q - \\log p$; the other term, $\\mathrm{E}[\\nabla \\log q]$, is 0. "
        "So $r$ stands behind the stop-gradient, as an advantage of the opposite sign does in "
        "policy-gradient code, and log q in front of it is what is differentiated. Differentiate "
        "$r$ and only the term is left whose mean is 0: the curve looks right and nothing is "
        "learned. `1 + log_q - log_q.detach()` is the importance weight $q / q_\\text{old}$ of a "
        "student that has not moved yet. Each token answers for its own log-ratio alone: that it "
        "leads to worse prefixes is left out; with the sum of the ratios to go in place of its own "
        "it would be the gradient of the sequence's KL, with more variance. The interviewer "
        "listens for: what is constant and why, the shift by one, the mask, the direction. "
        "Sources: [Lu and Thinking Machines Lab, On-Policy Distillation, "
        "2025](cite:lu2025onpolicy); [Williams, Machine Learning 8, 1992](cite:williams1992simple)."
    ),
    reference=opd_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=chosen(TOKENS, "divided-by-length")
    | switches(
        """
        # gradient
        - differentiated: the value is right and its gradient is 0 on average: the log-ratio itself
          is differentiated, and all that depends on the student is log q, whose gradient has the
          mean 0 over the student's own draws. The log-ratio, held constant, has to multiply it.
          Seen in code: OpenRLHF pull request 1309 mends it
        - product-differentiated: log-ratio times log q is differentiated in both factors: the
          log-ratio is a weight, so detach it.
          Seen asked: THUDM/slime issue 1449
        - other-factor-detached: the wrong factor is held constant: the gradient has to flow through
          log q of the drawn token, and the log-ratio in front of it is the constant.
        - surrogate-alone: the gradient is right, the value is no KL: log-ratio times log q has
          nothing to say as a number. Let log q come in with the value 0 or its exponential with the
          value 1.
        - no-gradient: the value is right and there is no gradient: log q of the drawn token was
          detached as well.
        - half-square: this is k2, half the squared log-ratio: its gradient is the right one, and
          its value is no estimate of the KL without bias.
        - third: this is k3: its value is another estimate of the same KL, and its gradient is on
          average that of the forward KL.
        - gradient-sign: the value is right, the gradient has the wrong sign: it raises the tokens
          that the student says too often. A reward would be log p - log q; in a loss it is the
          other way round.
        # ratio
        - sign: the sign is wrong: this is log p - log q, the reward. A loss falls as the KL falls:
          log q - log p.
        - probability-gap: the difference of the probabilities is taken, not of their logarithms.
        - teacher-missing: the teacher is not asked: this is -log q, the student's own surprise.
        - clamped: log-ratios below 0 are cut off: a KL is never negative, but the log-ratio of one
          token is whenever the teacher likes it better than the student; without these the mean is
          too large and nothing is ever raised.
        - absolute: the log-ratios are taken without their signs: the mean of a KL needs both.
        - weighted-twice: each log-ratio is multiplied by the student's probability of the token: it
          was drawn with that probability, which is the weight already.
        # weight
        - mean-subtracted: the mean log-ratio is subtracted from the weights: a baseline is a
          legitimate way to lower the variance, and another gradient than the one asked for.
        - standardized: the log-ratios are centered and divided by their deviation in front of the
          gradient, as advantages often are: the value of the KL then no longer says how large a
          step is.
        - to-go: each token is weighted with the sum of the log-ratios from it to the end: that is
          the gradient of the sequence's KL. Asked for is each token by itself.
        # positions
        - not-shifted: the logits at a token are those that predict the next one: position i
          predicts token i + 1.
        - teacher-late: the teacher's numbers are late by one: entry i belongs to token i, as the
          task says.
        # tokens
        - own-argmax: the student's most probable tokens are scored, not those that it drew.
        # mask
        - mask-late: the mask is late by one against the tokens.
        - every-token: tokens that the student did not write are in the loss: prompt and padding
          count. Select with written.
        - nan-times-zero: the loss is not finite where the teacher gives NaN for the prompt: 0 · NaN
          is NaN, so multiplying by the mask comes too late. Select first.
        # softmax
        - over-positions: the softmax runs over the positions: the vocabulary is the last dimension.
        - logits-for-logarithms: the student's logits stand where its log-probabilities belong: the
          log_softmax is missing.
        - log-of-softmax: softmax(...).log() is -inf as soon as a probability underflows to 0: take
          log_softmax.
        """
    ),
    sizes=lambda case: {
        "B": case["tokens"].shape[0],
        "L": case["tokens"].shape[1],
        "V": case["student_logits"].shape[2],
        "N": int(case["written"].sum()),
    },
    gradients=("student_logits",),
    detached=("teacher_log_probs",),
)
