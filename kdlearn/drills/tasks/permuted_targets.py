"""Drill: soft targets whose wrong classes are dealt out anew, a control."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def permuted_targets(probabilities: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """Return soft targets that tell which class is right, and of the others only how sure it is.

    probabilities: shape (B, C), a teacher's; labels: shape (B,). Each image's label keeps its
    probability. The C - 1 others are permuted among the other classes: for each image by a
    permutation of its own, drawn with the generator, all equally likely. Change nothing else.
    """
    own = F.one_hot(labels, probabilities.shape[1]).bool()
    noise = torch.rand(probabilities.shape, generator=generator, dtype=torch.float64)
    sources = noise.masked_fill(own, -1.0).argsort(dim=1)[:, 1:]
    places = own.logical_not().nonzero()[:, 1].view(sources.shape)
    return probabilities.scatter(1, places, probabilities.gather(1, sources))


def _case(generator: Generator, batch: int, classes: int) -> Case:
    # So many classes that two images share a permutation once in a million checks.
    return {
        "probabilities": draws.normal(generator, batch, classes, scale=2).softmax(1),
        "labels": torch.arange(batch) % 3,
        "generator": Generator().manual_seed(draws.one(generator, 0, 10**6)),
    }


def example() -> Case:
    """Six images of twelve classes; the teacher is wrong about most."""
    return _case(Generator().manual_seed(1), 6, 12)


def cases(generator: Generator) -> list[Case]:
    """Batches in which some images have the same label."""
    return [_case(generator, batch, classes) for batch, classes in ((6, 13), (7, 16), (8, 14))]


def observe(case: Case, result: Tensor) -> dict[str, str]:
    """What can be told of a result whatever was drawn."""
    if result.data_ptr() == case["probabilities"].data_ptr():
        return {"targets": "cannot be told from an argument that was changed"}
    before, after = case["probabilities"], result.to(case["probabilities"].dtype)
    labels, largest = case["labels"], before.argmax(1)
    own = F.one_hot(labels, before.shape[1]).bool()
    others = before[~own].view(len(before), -1), after[~own].view(len(before), -1)
    at_label, at_largest = (
        _alike(*(side.gather(1, one[:, None]) for side in (before, after)))
        for one in (labels, largest)
    )
    one = torch.ones(1, dtype=before.dtype)
    return {
        "place that is kept": "the label's"
        if at_label
        else "the largest one's"
        if at_largest
        else "none",
        "sum of each image": "1" if torch.allclose(after.sum(1), one, atol=1e-5) else "not 1",
        "numbers": "the teacher's"
        if _alike(*_by_size(before, after))
        else _others(before, *others),
        "permutations": _permutations(*others),
    }


def _alike(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-6, atol=0)


def _by_size(*sides: Tensor) -> list[Tensor]:
    return [side.sort(1).values for side in sides]


def _others(row: Tensor, before: Tensor, after: Tensor) -> str:
    if not after.any():
        return "zeros"
    if _alike(after, after[:, :1].expand_as(after)):
        return "all alike"
    if torch.isclose(after[:, :, None], before[:, None], rtol=1e-6, atol=0).any(2).all():
        return "some of the teacher's twice"
    if torch.isclose(after[:, :, None], row[:, None], rtol=1e-6, atol=0).any(2).all():
        return "the label's too"
    one, other = _by_size(before, after)
    factors = other / one
    return "the teacher's, scaled" if _alike(factors, factors[:, :1].expand_as(one)) else "others"


def _permutations(before: Tensor, after: Tensor) -> str:
    found = torch.isclose(after[:, :, None], before[:, None], rtol=1e-6, atol=0)
    if not ((found.sum(1) == 1) & (found.sum(2) == 1)).all():
        return "none of the other classes alone"
    order = found.int().argmax(2)
    steps = order.diff(dim=1)
    if (steps == 1).all():
        return "nothing is moved"
    if (steps % order.shape[1] == 1).all():
        return "shifts in a circle"
    if any((side.diff(dim=1) >= 0).all() for side in (after, -after)):
        return "sorted by size"
    different = len(set(map(tuple, order.tolist())))
    if different == len(order):
        return "one for each image"
    return "one for all images" if different == 1 else "shared by some images"


def edges() -> list[Edge]:
    """One image, float32."""
    case = example()
    one = {name: case[name][:1] for name in ("probabilities", "labels")}
    return [
        Edge("a batch of one image", case | one),
        Edge("float32 probabilities", case | {"probabilities": case["probabilities"].float()}),
    ]


def family(wrong: Wrong, probabilities: Tensor, labels: Tensor, generator: Generator) -> Tensor:
    """The targets with their switches."""
    p = probabilities
    batch, classes = p.shape
    kept = labels
    if "largest-kept" in wrong:
        kept = p.argmax(1)
    own = F.one_hot(kept, classes).bool()
    places = own.logical_not().nonzero()[:, 1].view(batch, classes - 1)
    if {"label-moves", "label-twice"} & wrong:
        places = torch.arange(classes).expand(batch, classes)
    noise = torch.rand(places.shape, generator=generator)
    if "one-for-all" in wrong:
        noise = noise[:1].expand(places.shape)
    if "one-for-each-class" in wrong:
        noise = torch.rand(classes, places.shape[1], generator=generator)[labels]
    order = noise.argsort(1)
    if "rolled" in wrong:
        shifts = torch.randint(1, places.shape[1], (batch, 1), generator=generator)
        order = (torch.arange(places.shape[1]) + shifts) % places.shape[1]
    if "with-replacement" in wrong:
        order = torch.randint(places.shape[1], places.shape, generator=generator)
    if "sorted" in wrong:
        order = p.gather(1, places).argsort(1)
    if "not-permuted" in wrong:
        order = torch.arange(places.shape[1]).expand(places.shape)
    dealt = p.gather(1, places.gather(1, order))
    rest = dealt.sum(1, keepdim=True)
    if "all-alike" in wrong:
        dealt = rest.expand(places.shape) / places.shape[1]
    if "drawn-anew" in wrong:
        fresh = torch.rand(places.shape, generator=generator, dtype=p.dtype)
        dealt = rest * fresh / fresh.sum(1, keepdim=True)
    if "through-softmax" in wrong:
        dealt = dealt.softmax(1)
    if "normalized-alone" in wrong:
        dealt = dealt / rest
    if "others-left-out" in wrong:
        dealt = torch.zeros_like(dealt)
    targets = p.scatter(1, places, dealt)
    if "label-twice" in wrong:
        targets = torch.where(own, p, targets)
    if "images-exchanged" in wrong:
        targets = p[(torch.arange(batch) + 1) % batch]
    if "over-the-batch" in wrong:
        targets = p.gather(0, torch.rand(p.shape, generator=generator).argsort(0))
    return targets


drill = Drill(
    id="permuted-targets",
    title="Does it matter which wrong class?",
    task=(
        "A student learns more from soft targets than from labels. Is that because they tell which "
        "wrong classes are nearly right, or only because they are soft? Write the targets of the "
        "control that tells the two apart: the same confidence, the same numbers, at the wrong "
        "classes."
    ),
    minutes=8,
    level="core",
    hints=(
        "Each target has two kinds of knowledge: how sure the teacher is, and which other classes "
        "it considers. Which of them is to survive?",
        "If class 3 always got the number of class 8, a student could learn that as well as the "
        "truth. What has to differ from image to image?",
        "Random numbers of the shape of the batch, sorted in each row, are one random order for "
        "each image. What do you do to the number at the label, so that it takes no part?",
    ),
    explanation=(
        "O(BC log C) for the sort. What stays: the label's probability, the entropy, the set of "
        "the other numbers. What goes: which class they belong to. If the student learns as well "
        "from these, similarity between classes was not what helped. The permutation must be the "
        "image's own. One permutation for all only renames the classes: what is said of an image "
        "is still a function of it, and can be learned. Permuting the whole row would also "
        "destroy the labels, so that the control would lose for another reason. Where the teacher "
        "is wrong, the largest probability and that of the label are different numbers, so say "
        "which of them stays: here the label's, in [Furlanello et al., "
        "2018](cite:furlanello2018born), who call the control DKPP, the largest. Drawn anew at "
        "each epoch, the wrong classes are alike on average: label smoothing, by as much as the "
        "teacher is unsure of that image. The interviewer listens for: what is held fixed, what "
        "is destroyed, and a permutation for each image."
    ),
    reference=permuted_targets,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # permutation
        - one-for-all: one permutation serves all images: it renames the classes, and what the
          teacher says can still be learned. Draw one for each image.
        - one-for-each-class: images of the same label share a permutation: what is said of a class
          as a whole can still be learned. Draw one for each image.
        - rolled: the probabilities are shifted in a circle: only C - 1 of the permutations can
          come, and neighbors stay neighbors.
        - with-replacement: the places are drawn with replacement: some probabilities come twice and
          others not at all, so that the rows do not sum to 1.
        - sorted: the other probabilities are sorted: the first class then always has the smallest,
          or the largest, which is a pattern and no chance.
        - not-permuted: nothing is permuted: these are the teacher's probabilities.
        # kept
        - label-moves: the whole row is permuted: the label loses its probability, and the control
          destroys more than it should.
        - label-twice: the whole row is permuted and the label's probability is then written back:
          it also stands at another class, and what was dealt to the label's place is lost.
        - largest-kept: the largest probability stays in its place, not the label's: where the
          teacher is wrong, these are two.
        # values
        - all-alike: the other classes share their probability equally: that is another control,
          without the spread of the numbers.
        - drawn-anew: the other probabilities are drawn anew: only their sum is the teacher's.
          Permute the ones that are there.
        - through-softmax: the other probabilities go through a softmax: they sum to 1 without the
          label.
        - normalized-alone: the other probabilities are divided by their sum: they sum to 1 without
          the label.
        - others-left-out: the other classes get nothing: the rows do not sum to 1, and nothing
          soft is left.
        # batch
        - images-exchanged: whole answers go from one image to another: the label's probability goes
          with them. Permute within each row.
        - over-the-batch: each class is permuted over the images, dim=0: the rows do not sum to 1.
          Permute over the classes.
        """
    ),
    sizes=lambda case: {"B": len(case["labels"]), "C": case["probabilities"].shape[1]},
    free=frozenset({"draws of the generator"}),
    observe=observe,
)
