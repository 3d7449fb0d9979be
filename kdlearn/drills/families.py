"""What drills have in common: a divergence, a mixture, a map, with their switches; and edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.drills.grader.drill import Case, Edge, Fault, Wrong, switches

Knobs = dict[str, tuple[Fault, ...]]


def divergence(wrong: Wrong, student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Return T² · KL(teacher || student), averaged over the batch, with faults.

    Args:
        wrong: the faults, of `divergence_knobs`.
        student: logits (B, C).
        teacher: logits (B, C), used as a constant.
        temperature: T.

    Example:
        >>> z = torch.tensor([[0.0, 1.0]])
        >>> divergence(frozenset(), z, z).item()
        0.0
    """
    s, log_q = side_of("student", wrong, student, temperature)
    t, log_p = side_of("teacher", wrong, teacher.detach(), temperature)
    terms = terms_of(wrong, (s, log_q), (t, log_p))
    total = terms.sum() / len(s)
    if "mean-reduction" in wrong:
        total = terms.mean()
    if "sum-reduction" in wrong:
        total = terms.sum()
    if "mean-over-classes-only" in wrong:
        total = terms.mean(1).sum()
    power = {"t-squared-missing": 0, "t-not-squared": 1, "divided-by-t-squared": -2}
    found = next((power[name] for name in power if name in wrong), 2)
    return total * temperature**found * (-1 if "sign" in wrong else 1)


def terms_of(
    wrong: Wrong, student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]
) -> Tensor:
    """Return what each class adds to KL(teacher || student); faults as in `divergence`.

    Args:
        wrong: the faults.
        student: softened logits and log-probabilities, as `side_of` gives them.
        teacher: the same of the teacher.

    Example:
        >>> side = torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]).log()
        >>> terms_of(frozenset(), side, side).tolist()
        [[0.0, 0.0]]
    """
    (s, log_q), (t, log_p) = student, teacher
    if "reversed" in wrong:
        s, log_q, t, log_p = t, log_p, s, log_q
    q, p = log_q.exp(), log_p.exp()
    given = log_q
    if "probabilities-as-input" in wrong:
        given = q
    if "logits-as-input" in wrong:
        given = s
    if "guard-in-logarithm" in wrong:
        given, log_p = (q + 1e-8).log(), (p + 1e-8).log()
    terms = p * (log_p - given)
    if "log-target" in wrong:
        terms = log_p * (log_p.log() - given)
    if "log-target-of-probabilities" in wrong:
        terms = p.exp() * (p - given)
    if "cross-entropy" in wrong:
        terms = -p * given
    if "symmetric" in wrong:
        terms = (p - q) * (log_p - log_q)
    if "argmax-only" in wrong:
        terms = -F.one_hot(t.argmax(-1), t.shape[-1]) * given
    if "squared-gap" in wrong:
        terms = (p - q).square()
    if "logits-matched" in wrong:
        terms = (s - t).square()
    return log_p - given if "weights-missing" in wrong else terms


def token_mean(wrong: Wrong, terms: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of the terms (N,) of the N tokens that count, with the faults of `TOKENS`.

    Example:
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> token_mean(frozenset({"mean-per-sequence"}), torch.tensor([1.0, 2.0, 3.0]), mask).item()
        2.25
    """
    batch, length = mask.shape
    if "mean-per-sequence" in wrong:
        owner = mask.nonzero()[:, 0]
        means = [terms[owner == row].mean() for row in range(batch) if (owner == row).any()]
        return torch.stack(means).mean()
    over = {
        "divided-by-batch": batch,
        "divided-by-all": mask.numel(),
        "divided-by-length": length,
        "summed": 1,
    }
    return terms.sum() / next((over[name] for name in over if name in wrong), len(terms))


TOKENS: Knobs = switches(
    """
    # denominator
    - divided-by-batch: your sum is divided by the B = {B} sequences, not by the N = {N} tokens that
      count, as 'batchmean' does on three dimensions: the loss grows with the length of the answers.
      Divide by their number.
      Seen in code: neuralmagic/sparseml pull request 592
    - mean-per-sequence: you take the mean of each sequence, then the mean of those: a token of a
      short answer weighs more than one of a long answer. Sum over all tokens that count, then
      divide by their number.
    - divided-by-all: the sum goes over the N = {N} tokens that count, but you divide by all B · L
      positions: the more padding a batch has, the smaller its loss. Divide by their number
      instead of calling .mean().
    - divided-by-length: the sum is divided by L, the length of the batch: divide by the N = {N}
      tokens that count.
    - summed: the tokens are summed, not averaged: divide by their number N = {N}.
    """
)
"""The switches of `token_mean`."""


def side_of(side: str, wrong: Wrong, z: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return one side's softened logits and log-probabilities; faults as in `divergence`.

    Example:
        >>> side_of("student", frozenset({"multiplied"}), torch.ones(1, 2), 3.0)[0].tolist()
        [[3.0, 3.0]]
    """
    other = "teacher" if side == "student" else "student"
    if "multiplied" in wrong:
        z = z * temperature
    elif not {f"{other}-alone-softened", "temperature-ignored", "divided-afterwards"} & wrong:
        z = z / temperature
    if {f"softmax-twice-{side}", "softmax-twice"} & wrong:
        z = z.softmax(-1)
    dim = 0 if {f"wrong-dimension-{side}", "wrong-dimension"} & wrong else -1
    log = z.log_softmax(dim)
    if "over-everything" in wrong:
        log = z.flatten().log_softmax(0).view_as(z)
    if "log-of-softmax" in wrong:
        log = z.softmax(dim).log()
    if "divided-afterwards" in wrong:
        log = log - torch.tensor(temperature, dtype=z.dtype).log()
    return z, log


DIVERGENCE = """
# direction
- reversed: <term> is KL(student || teacher): F.kl_div(log q, p) is KL(p || q), so the student's
  logarithms come first and the teacher's probabilities weigh the sum.
- cross-entropy: <term> is the cross-entropy with soft targets: its gradient is right, and the
  teacher's entropy is still in the value, so that it is not 0 for a student that equals its
  teacher.
- symmetric: <term> is KL(teacher || student) + KL(student || teacher): only the first of the two is
  asked for.
- argmax-only: in <term> only the teacher's most probable class counts: that is hard distillation, a
  legitimate method and another one. What the teacher says of the other classes is lost.
- squared-gap: <term> is the squared difference of probabilities: no logarithm, so a class that the
  student misses altogether costs little.
- logits-matched: <term> is the squared difference of softened logits: no softmax. It is what a KL
  tends to at high T, and another loss at this one.
- weights-missing: in <term> the log-ratios are summed without their weights, the teacher's
  probabilities.
# input
- probabilities-as-input: F.kl_div wants the logarithms of probabilities as its first argument, and
  got probabilities: <term> can be negative, which a KL divergence never is.
  Seen in code: microsoft/ProDA issue 43
- logits-as-input: F.kl_div wants the logarithms of probabilities as its first argument, and got
  logits: they do not sum to 1 after exp, and <term> has no floor. Take log_softmax.
- log-target: F.kl_div took the logarithms of its target for probabilities: pass log_target=True, or
  give it probabilities.
  Seen proposed: nlp-with-transformers issue 94, of code that was right
- log-target-of-probabilities: F.kl_div took its target for logarithms, and got probabilities:
  log_target=True belongs to log-probabilities. Leave it out, or give it log_softmax.
# reduction
- mean-reduction: <term> is <sizes> times too small: reduction='mean', the default of F.kl_div, and
  .mean() divide by <by> too. Sum over <by>, average over the batch: 'batchmean'.
  Seen in code: facebookresearch/deit issue 61
- sum-reduction: <term> is B = {B} times too large: it is summed over the batch, not averaged.
- mean-over-classes-only: <term> is averaged over <by> and summed over the batch: it should be the
  other way round.
# dimension
- wrong-dimension: the softmax runs over the batch, dim=0: rows compete with one another for a
  class. The classes are the last dimension.
- wrong-dimension-student: the student's softmax runs over the batch, dim=0: the classes are the
  last dimension.
- wrong-dimension-teacher: the teacher's softmax runs over the batch, dim=0: the classes are the
  last dimension.
- over-everything: the softmax runs over the whole batch at once: all rows together sum to 1, not
  each.
# softmax
- softmax-twice-student: softmax is applied to the student before log_softmax: its distribution
  becomes nearly uniform whatever it says. Give log_softmax the logits.
  Seen proposed: haitongli/knowledge-distillation-pytorch issue 10
- softmax-twice-teacher: softmax is applied twice to the teacher: its target becomes nearly uniform,
  and says that all classes are alike.
  Seen withdrawn: mit-han-lab/once-for-all issue 5, by who asked, the same day
- softmax-twice: softmax is applied twice on both sides: both distributions become nearly uniform.
# logarithm
- log-of-softmax: softmax(...).log() is -inf as soon as a probability underflows to 0, and the loss
  infinite or NaN: use log_softmax.
- guard-in-logarithm: a guard of 1e-8 inside a logarithm is too large: where a probability is
  smaller, the loss is wrong. log_softmax needs no guard.
# sign
- sign: the sign is wrong: <term> falls as student and teacher part.
"""
SOFTENING = """
# temperature
- multiplied: the logits are multiplied by T, not divided: both distributions get sharper as T
  grows.
- student-alone-softened: only the student's logits are divided by T: the teacher's target is as
  hard as it is at T = 1, and the dark knowledge stays hidden. Both sides use the same T.
- teacher-alone-softened: only the teacher's logits are divided by T: the student is matched at
  another temperature. Both sides use the same T.
- temperature-ignored: neither side is divided by T: these are the distributions at T = 1.
- divided-afterwards: T divides the probabilities, not the logits: they sum to 1/T, and their ratios
  are as they were.
# factor
- t-squared-missing: T² is missing: the gradient shrinks as 1/T², so the weight of this term would
  mean something else at each T.
  Seen in code: keras-team/keras-io before pull request 870
- t-not-squared: the factor is T, not T²: the softmax gives one 1/T, and the difference of
  probabilities shrinks by another.
- divided-by-t-squared: <term> is divided by T², not multiplied: the gradient shrinks as 1/T⁴.
"""


def divergence_knobs(
    term: str = "your loss", *, temperature: bool = True, sizes: str = "C = {C}"
) -> Knobs:
    """Return the switches of `divergence`.

    Args:
        term: how the divergence is called in the sentences.
        temperature: whether there is one.
        sizes: how the number of classes is told.

    Example:
        >>> sorted(divergence_knobs(temperature=False))[:3]
        ['dimension', 'direction', 'input']
    """
    text = DIVERGENCE + (SOFTENING if temperature else "")
    words = {"<term>": term, "<sizes>": sizes, "<by>": sizes.split(" = ")[0]}
    for mark, word in words.items():
        text = text.replace(mark, word)
    return switches(text)


def reverse_terms(wrong: Wrong, log_q: Tensor, log_p: Tensor) -> Tensor:
    """Return the terms q log(q / p) of KL(student || teacher), with the faults of `REVERSE`.

    Example:
        >>> log_q, log_p = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.25]).log()
        >>> [round(x, 4) for x in reverse_terms(frozenset(), log_q, log_p).tolist()]
        [-0.3466, 0.3466]
    """
    q, p = log_q.exp(), log_p.exp()
    if "constant-weight" in wrong:
        q = q.detach()
    if "forward" in wrong:
        return p * (log_p - log_q)
    if "symmetric" in wrong:
        return (q - p) * (log_q - log_p)
    if "entropy-missing" in wrong:
        return -q * log_p
    if "log-ratio-alone" in wrong:
        return log_q - log_p
    return -p * log_q if "soft-cross-entropy" in wrong else q * (log_q - log_p)


REVERSE: Knobs = switches(
    """
    # direction
    - forward: this is the forward KL(teacher || student): F.kl_div(log q, p) is KL(p || q), so for
      the reverse KL the student is the second argument, and its probabilities come first.
    - symmetric: both directions are added: only KL(student || teacher) is asked for.
    - entropy-missing: this is the cross-entropy of the student against the teacher, without the
      student's entropy. In the forward KL the entropy left out is the teacher's, a constant; here
      it is the student's, and without it the minimum is a student that is certain of the teacher's
      first choice.
    - soft-cross-entropy: this is the cross-entropy of the teacher's probabilities: neither the
      direction nor the entropy is that of the reverse KL.
    # weights
    - log-ratio-alone: the log-ratios are summed without their weights, the student's probabilities.
    - constant-weight: the value is right, the gradient is zero: the student's probabilities in
      front of the log-ratio were detached, and what is left cancels. The weight is the student's,
      and it belongs to the graph.
    """
)
"""The switches of `reverse_terms`."""


def mixture(
    wrong: Wrong,
    student: Tensor,
    teacher: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    weight: float,
) -> Tensor:
    """Return (1 - weight) · cross-entropy + weight · `divergence`, with the faults of `MIXTURE`.

    Example:
        >>> z = torch.tensor([[0.0, 0.0]])
        >>> label = torch.tensor([1])
        >>> round(mixture(frozenset(), z, z, label, temperature=2.0, weight=0.5).item(), 4)
        0.3466
    """
    soft = divergence(wrong, student, teacher, temperature)
    logits, targets = student, labels
    if "labels-softened" in wrong:
        logits = logits / temperature
    if "labels-multiplied" in wrong:
        logits = logits * temperature
    if "softmax-before-cross-entropy" in wrong:
        logits = logits.softmax(1)
    if "log-softmax-alone" in wrong:
        hard = F.nll_loss(logits, targets)
    elif "argmax-as-labels" in wrong:
        hard = F.cross_entropy(logits, teacher.argmax(1))
    elif "own-argmax-as-labels" in wrong:
        hard = F.cross_entropy(logits, student.detach().argmax(1))
    elif "teacher-graded" in wrong:
        hard = F.cross_entropy(teacher.detach(), targets)
    else:
        summed = "labels-summed" in wrong
        hard = F.cross_entropy(logits, targets, reduction="sum" if summed else "mean")
    if "t-squared-on-labels" in wrong:
        hard = temperature**2 * hard
    if "soft-term-detached" in wrong:
        soft = soft.detach()
    if "labels-term-detached" in wrong:
        hard = hard.detach()
    ours, theirs = 1 - weight, weight
    if "weights-swapped" in wrong:
        ours, theirs = theirs, ours
    if "added-in-full" in wrong:
        ours = 1.0
    if "weights-missing-altogether" in wrong:
        ours = theirs = 1.0
    if "halves" in wrong:
        ours = theirs = 0.5
    if "labels-weight-alone" in wrong:
        theirs = 1.0
    if "same-weight-twice" in wrong:
        ours = weight
    if "labels-missing" in wrong:
        ours = 0.0
    if "labels-missing-altogether" in wrong:
        ours, theirs = 0.0, 1.0
    if "soft-term-missing" in wrong:
        theirs = 0.0
    if "labels-alone" in wrong:
        ours, theirs = 1.0, 0.0
    return ours * hard + theirs * soft


MIXTURE: Knobs = switches(
    """
    # weights
    - weights-swapped: the weights are swapped: weight belongs to the soft term, 1 - weight to the
      labels.
    - added-in-full: the labels' term has weight 1, not 1 - weight: that is another common form, and
      not what the task asks for.
    - weights-missing-altogether: the two terms are added without their weights.
    - halves: the two terms are averaged: each has the weight 1/2, whatever weight says.
    - labels-weight-alone: the soft term has the weight 1 in place of weight.
    - same-weight-twice: both terms are multiplied by weight: the labels' term belongs to 1 -
      weight.
    - labels-missing: the labels are not used: the labels' term is missing.
    - labels-missing-altogether: the labels are not used: this is the soft term alone, without its
      weight.
    - soft-term-missing: the soft term is missing: this is the labels' term with its weight.
    - labels-alone: the teacher is not used: this is the cross-entropy with the labels alone.
    # labels
    - labels-softened: the labels' term is softened by T too: the student would be trained for
      answers at a temperature at which it is not used.
    - labels-multiplied: the logits of the labels' term are multiplied by T: it has no temperature.
    - softmax-before-cross-entropy: softmax is applied before cross_entropy, which applies its own:
      the labels' term cannot get small any more.
      Seen proposed: haitongli/knowledge-distillation-pytorch issue 10
    - log-softmax-alone: F.nll_loss got logits: it wants log-probabilities, and takes the negative
      of whatever it gets. Use F.cross_entropy.
    - argmax-as-labels: the hard term uses the teacher's most probable class in place of the labels:
      where the teacher is wrong, both terms now teach its error.
    - own-argmax-as-labels: the hard term uses the student's own most probable class in place of the
      labels: it only makes it surer of what it says.
    - teacher-graded: the labels' term is that of the teacher's logits: the student gets no gradient
      from it.
    # labels' factor
    - t-squared-on-labels: T² multiplies the labels' term too: it has no temperature, so nothing has
      shrunk there.
    - labels-summed: the labels' term is summed over the batch, not averaged.
    # gradient
    - soft-term-detached: the loss is right and the soft term sends no gradient: the student learns
      from the labels alone. The teacher is detached, never the student.
    - labels-term-detached: the loss is right and the labels' term sends no gradient: .item() or
      .detach() stands there.
    """
)
"""The switches of `mixture` beside those of `divergence`."""


def map_of(wrong: Wrong, features: Tensor, p: float = 2.0) -> Tensor:
    """Return the map Σ_c |A_c|^p of L2 length 1, shape (B, H, W), with the faults of `MAPS`.

    Example:
        >>> map_of(frozenset(), torch.ones(1, 3, 2, 2)).tolist()
        [[[0.5, 0.5], [0.5, 0.5]]]
    """
    if "channels-normalized-first" in wrong:
        features = F.normalize(features.flatten(2), dim=2).view_as(features)
    if "positions-normalized-first" in wrong:
        features = F.normalize(features, dim=1)
    if "power-ignored" in wrong:
        p = 2.0
    if "not-squared" in wrong:
        p = 1.0
    energy = features.abs().pow(p).sum(1)
    if "absolute-value-missing" in wrong:
        energy = features.pow(p).sum(1)
    if "features-averaged" in wrong:
        energy = features.mean(1)
    if "squared-after-the-sum" in wrong:
        energy = features.sum(1).abs().pow(p)
    if {"mean-not-normalized", "softmax-of-mean"} & wrong:
        energy = features.square().mean(1)
    if "fourth-power" in wrong:
        energy = features.pow(4).sum(1)
    if "strongest-channel" in wrong:
        energy = features.abs().pow(p).amax(1)
    if "rooted" in wrong:
        # Where there is nothing, the gradient is 0, as that of a norm.
        energy = torch.where(energy > 0, energy, 1).pow(1 / p) * (energy > 0)
    flat = energy.flatten(1)
    made = {
        "not-normalized": lambda: flat,
        "mean-not-normalized": lambda: flat,
        "softmax-of-mean": lambda: flat.softmax(1),
        "normalized-over-batch": lambda: F.normalize(flat, dim=0),
        "normalized-by-column": lambda: F.normalize(energy, dim=1),
        "normalized-by-row": lambda: F.normalize(energy, dim=2),
        "normalized-altogether": lambda: flat / flat.norm(),
        "sum-to-one": lambda: flat / flat.sum(1, keepdim=True),
        "power-as-norm": lambda: F.normalize(flat, p=p, dim=1),
        "largest-is-one": lambda: flat / flat.amax(1, keepdim=True),
        "softmax-map": lambda: flat.softmax(1),
        "standardized": lambda: (flat - flat.mean(1, keepdim=True)) / flat.std(1, keepdim=True),
        "divided-by-the-square": lambda: flat / flat.square().sum(1, keepdim=True),
        "guard-in-norm": lambda: flat / (flat.norm(dim=1, keepdim=True) + 1e-6),
    }
    chosen_one = next((made[name] for name in made if name in wrong), None)
    result = F.normalize(flat, dim=1) if chosen_one is None else chosen_one()
    return result.reshape(energy.shape)


MAPS: Knobs = switches(
    """
    # energy
    - not-squared: the absolute values are summed, not their squares: that is the map for p = 1, and
      the task asks for p = 2.
    - features-averaged: channels are averaged or summed with their signs: activations of opposite
      sign cancel, and what is left is no energy. Square first.
    - squared-after-the-sum: the power is taken after the sum over channels: activations of opposite
      sign have cancelled by then. The power of each activation first, the sum afterwards.
    - fourth-power: the fourth powers are summed, not the squares: asked for is p = 2.
    - strongest-channel: the strongest channel is taken in place of the sum over channels.
    - rooted: a root is taken of the sum over channels: this is the norm of each position's
      channels, not its energy.
    # before
    - channels-normalized-first: each channel is normalized before the sum: a channel that is nearly
      silent then counts as much as a strong one.
    - positions-normalized-first: the channels of each position are normalized before the sum: every
      position then has the same energy, and every map is flat.
    # normalization
    - not-normalized: the maps are not normalized: features three times as large give another
      result, and a loss on it rewards small activations. Bring each sample's map to length 1.
    - mean-not-normalized: the maps are not normalized, and their energies are averaged over
      channels: features three times as large give another result. Bring each sample's map to length
      1.
    - softmax-of-mean: the map is a softmax of energies averaged over channels: it sums to 1, and
      depends on the scale of the features through the exponential.
    - normalized-over-batch: the map of one image depends on the other images: the normalization
      runs over the batch. Flatten each sample's positions, and normalize those.
      Seen claimed: of the official code in szagoruyko/attention-transfer issue 34, which normalizes
      each sample
    - normalized-by-column: each column of the map has length 1, not the whole map: flatten H and W
      before normalizing.
    - normalized-by-row: each row of the map has length 1, not the whole map: flatten H and W before
      normalizing.
    - normalized-altogether: the whole batch has length 1 together, not each map: normalize each
      sample by itself.
    - sum-to-one: the maps sum to 1, but their L2 length is not 1: divide by the root of the sum of
      squares.
    - largest-is-one: the maps are divided by their largest value: their L2 length is not 1.
    - softmax-map: the map is a softmax over positions: it sums to 1, and depends on the scale of
      the features through the exponential.
    - standardized: the maps have mean 0 and deviation 1: asked for is L2 length 1, without
      subtracting anything.
    - divided-by-the-square: the maps are divided by the sum of squares: take its root.
    - guard-in-norm: a guard is added to the norm: where activations are small, it is as large as
      the norm, and the length is not 1. F.normalize guards only what is below 1e-12.
    """
)
"""The switches of `map_of`."""


def gap_of(wrong: Wrong, student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of maps, with the faults of `GAPS`.

    Example:
        >>> gap_of(frozenset({"paper-norm"}), torch.ones(2, 2, 2), torch.zeros(2, 2, 2)).item()
        2.0
    """
    gap = (student - teacher).flatten(1)
    terms = gap.abs() if "absolute-gap" in wrong else gap.square()
    total = terms.mean()
    if "cosine" in wrong:
        total = (1 - F.cosine_similarity(student.flatten(1), teacher.flatten(1))).mean()
    if "sum-over-positions" in wrong:
        total = terms.sum(1).mean()
    if "sum-over-batch" in wrong:
        total = terms.mean(1).sum()
    if "sum-over-everything" in wrong:
        total = terms.sum()
    if "paper-norm" in wrong:
        total = gap.norm(dim=1).mean()
    if "norm-of-everything" in wrong:
        total = gap.norm()
    if "root-of-the-mean" in wrong:
        total = terms.mean().sqrt()
    return 0.5 * total if "halved" in wrong else total


GAPS: Knobs = switches(
    """
    # distance
    - absolute-gap: the differences of the maps are not squared: absolute values pull as hard near
      the teacher as far away.
    # reduction
    - cosine: this is 1 - cos of the maps, half of their squares summed over positions: asked for is
      the mean over batch and positions.
    - paper-norm: this is the paper's form, a norm that is not squared, for each sample: beta
      belongs to one of the two forms and cannot be carried over. The task asks for the mean of
      squares.
      Seen asked: szagoruyko/attention-transfer issues 32 and 34
    - norm-of-everything: this is one norm over the whole batch: the task asks for the mean of
      squares.
    - root-of-the-mean: a root is taken of the mean of squares: leave it out.
    - sum-over-positions: the squares are summed over positions: large maps would weigh more than
      the mean lets them.
    - sum-over-batch: the squares are summed over the batch: the loss grows with it.
    - sum-over-everything: the squares are summed over batch and positions, not averaged.
    # factor
    - halved: the loss is halved: there is no 1/2 in what the task asks for.
    """
)
"""The switches of `gap_of`."""


def chosen(knobs: Mapping[str, tuple[Fault, ...]], *without: str) -> Knobs:
    """Return switches without some faults; a switch that has none left goes.

    Example:
        >>> "sign" in chosen(divergence_knobs(), "sign")
        False
    """
    left = {
        name: tuple(fault for fault in faults if fault.id not in without)
        for name, faults in knobs.items()
        if name not in without
    }
    return {name: faults for name, faults in left.items() if faults}


def example_logits() -> tuple[Tensor, Tensor]:
    """Return a student's and a teacher's logits, two rows of three classes.

    Example:
        >>> example_logits()[0].tolist()
        [[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]]
    """
    student = torch.tensor([[1.0, 0.0, 2.0], [0.0, 3.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[2.0, 1.0, -1.0], [1.0, 4.0, 0.0]], dtype=torch.float64)
    return student, teacher


def logits_edges(
    case: Case,
    *,
    rows: Sequence[str] = (),
    equal: Sequence[str] = ("student_logits", "teacher_logits"),
    far: Iterable[str] = (),
    size: float = 1e4,
    sure: float = 15,
) -> list[Edge]:
    """Return the edges of a function of two sides of logits.

    Args:
        case: the drill's example.
        rows: arguments whose first dimension is the batch; `equal` belongs to them.
        equal: the two sides.
        far: arguments that may be as large as floating point allows.
        size: how large they are then, times the example's.
        sure: factor to the example's logits that makes a probability small, but not 0; 0 leaves
            that edge out.

    Example:
        >>> s, t = example_logits()
        >>> [edge.title for edge in logits_edges({"student_logits": s, "teacher_logits": t})][:2]
        ['a batch of one row', 'two classes']
    """
    sides = list(equal)
    one_row = {name: case[name][:1] for name in (*sides, *rows)}
    small = {name: case[name].float() for name in sides}
    two = {name: case[name][:, :2] for name in sides}
    edges = [
        Edge(
            "a batch of one row",
            case | one_row,
            "Do not squeeze, and name the dimension.",
            without="what joins the rows of a batch",
        ),
        Edge(
            "a student that equals its teacher",
            case | {sides[0]: case[sides[1]].clone()},
        ),
        Edge("float32 logits", case | small),
    ]
    if sure:
        edges.append(
            Edge(
                "probabilities near 0",
                case | {name: sure * case[name] for name in sides},
                "A guard (eps, clamp) inside a logarithm is too large there.",
            )
        )
    if not rows:
        edges.insert(1, Edge("two classes", case | two))
    if far:
        edges.append(
            Edge(
                f"logits of {size:,.0f}",
                case | {name: size * case[name] for name in far},
                "Work with log_softmax or logsumexp, which subtract the largest logit first.",
            )
        )
    return edges
