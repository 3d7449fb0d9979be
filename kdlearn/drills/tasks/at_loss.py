"""Drill: the attention-transfer loss."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.families import GAPS, MAPS, gap_of, map_of
from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def attention_transfer_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean, over batch and positions, of the squared difference of attention maps.

    student: features (B, Cs, H, W). teacher: (B, Ct, H, W), a constant. Map: squares summed over
    channels, then L2 length 1 over the positions of each sample.
    """
    maps = [
        F.normalize(features.square().sum(dim=1).flatten(1), dim=1)
        for features in (student, teacher.detach())
    ]
    return (maps[0] - maps[1]).square().mean()


def example() -> Case:
    """Two images of two by three positions; the student has two channels, the teacher three."""
    student = [
        [[[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]], [[-1.0, 2.0, 0.0], [3.0, 0.5, 1.0]]],
        [[[1.0, 3.0, 0.0], [1.0, 0.0, 0.0]], [[0.0, -1.0, 1.0], [2.0, 0.5, 1.0]]],
    ]
    teacher = [
        [
            [[2.0, 0.0, 1.0], [0.0, 3.0, 0.0]],
            [[1.0, 1.0, 0.0], [0.0, 0.0, -1.0]],
            [[0.0, 0.0, 1.0], [0.0, 2.0, 0.0]],
        ],
        [
            [[0.0, 1.0, 0.0], [0.0, 0.0, 4.0]],
            [[1.0, 0.0, 0.0], [-2.0, 0.0, 1.0]],
            [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]],
        ],
    ]
    return {
        "student": torch.tensor(student, dtype=torch.float64),
        "teacher": torch.tensor(teacher, dtype=torch.float64),
    }


def cases(generator: Generator) -> list[Case]:
    """Sizes that all differ; the student's activations are smaller than the teacher's."""
    return [
        {
            "student": draws.normal(generator, batch, ours, height, width, scale=0.5),
            "teacher": draws.normal(generator, batch, theirs, height, width, scale=2),
        }
        for batch, ours, theirs, height, width in (
            (4, 3, 6, 5, 7),
            (2, 5, 8, 4, 3),
            (3, 2, 4, 6, 2),
            (6, 4, 3, 3, 5),
        )
    ]


def edges() -> list[Edge]:
    """One image, one position, small activations."""
    case = example()
    student, teacher = case["student"], case["teacher"]
    return [
        Edge("a batch of one image", {"student": student[:1], "teacher": teacher[:1]}),
        Edge("student features three times as large", case | {"student": 3 * student}),
        Edge("one channel", {"student": student[:, :1], "teacher": teacher[:, :1]}),
        Edge(
            "a student that equals its teacher",
            case | {"student": teacher.clone()},
            "A root has no derivative at 0.",
        ),
        Edge(
            "activations of 1e-4",
            case | {"student": 1e-4 * student},
            "A guard that is added is too large there.",
        ),
        Edge("float32 features", {"student": student.float(), "teacher": teacher.float()}),
    ]


def family(wrong: Wrong, student: Tensor, teacher: Tensor) -> Tensor:
    """The loss with its switches."""
    raw = {"not-normalized"}
    theirs = map_of(wrong | raw if "teacher-not-normalized" in wrong else wrong, teacher.detach())
    ours = map_of(wrong | raw if "student-not-normalized" in wrong else wrong, student)
    if "attention-copied" in wrong:
        ours = theirs + 0 * ours
    times = student.shape[1] if "times-channels" in wrong else 1
    return times * gap_of(wrong, ours, theirs)


drill = Drill(
    id="at-loss",
    title="The attention-transfer loss",
    task=(
        "Write the loss of activation-based attention transfer for one pair of layers. The student "
        "has fewer channels than the teacher; height and width are equal."
    ),
    minutes=8,
    level="core",
    hints=(
        "What is compared: features, or something without channels?",
        "A student with activations half as large should have the same loss. Which step sees to "
        "that, and for what is it done one by one: images, rows, the batch?",
        "Two maps of length 1 are compared by a squared difference. Over which two dimensions do "
        "you average, and which side is a constant?",
    ),
    explanation=(
        "O(B (Cs + Ct) H W). The squared distance of two vectors of length 1 is 2 - 2 cos, so this "
        "is (2 - 2 cos) / (HW): between 0 and 2 / (HW), whatever the activations' size. The mean "
        "over positions makes it small, which is why the official code multiplies by 1000; the "
        "paper's formula has an unsquared norm for each sample and beta / 2. A beta without its "
        "reduction says nothing. The interviewer listens for: normalized per sample, the teacher "
        "constant, a loss in every step and no copying. Source: [Zagoruyko and "
        "Komodakis](cite:zagoruyko2017paying), ICLR 2017, equation 2 and their code."
    ),
    reference=attention_transfer_loss,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=MAPS
    | GAPS
    | switches(
        """
        # sides
        - attention-copied: your loss is 0 whatever the student looks at: the teacher's map stands
          in the student's place. Attention transfer compares the student's own map with the
          teacher's.
        - teacher-not-normalized: the teacher's map is not normalized, and the student's is: no
          student can reach it.
        - student-not-normalized: the student's map is not normalized, and the teacher's is: the
          student is asked for activations of one size.
        # channels
        - times-channels: your loss is multiplied by the student's channels, as if a sum over
          channels had to be made up for: after normalizing, sum and mean are the same.
          Seen claimed: szagoruyko/attention-transfer issue 34
        """
    ),
    sizes=lambda case: {
        "B": len(case["student"]),
        "Cs": case["student"].shape[1],
        "P": case["student"][0, 0].numel(),
    },
    gradients=("student",),
    detached=("teacher",),
)
