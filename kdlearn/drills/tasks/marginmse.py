"""Drill: MarginMSE, which teaches a bi-encoder the margins of a cross-encoder."""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def margin_mse(
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    teacher_positive: Tensor,
    teacher_negative: Tensor,
) -> Tensor:
    """Return the mean squared difference of the student's and the teacher's margins.

    A margin is the score of a query's positive document minus that of one of its negatives; there
    are B · N of them. The student's score is the dot product of the embeddings.
    queries, positives: shape (B, D). negatives: shape (B, N, D), those of each query.
    teacher_positive: shape (B,), teacher_negative: shape (B, N): the teacher's scores, constants.
    """
    positive = (queries * positives).sum(dim=-1, keepdim=True)
    negative = torch.einsum("bd,bnd->bn", queries, negatives)
    margin = (teacher_positive[:, None] - teacher_negative).detach()
    return F.mse_loss(positive - negative, margin)


def example() -> Case:
    """Two queries, two numbers wide, with three negatives each."""
    negatives = [[[1.0, 0.0], [0.0, -1.0], [2.0, 1.0]], [[1.0, 1.0], [-1.0, 1.0], [0.0, 2.0]]]
    return {
        "queries": torch.tensor([[1.0, 2.0], [0.0, 1.0]], dtype=torch.float64),
        "positives": torch.tensor([[2.0, 1.0], [3.0, -1.0]], dtype=torch.float64),
        "negatives": torch.tensor(negatives, dtype=torch.float64),
        "teacher_positive": torch.tensor([5.0, 1.0], dtype=torch.float64),
        "teacher_negative": torch.tensor([[2.0, 1.0, 4.0], [3.0, -2.0, 0.0]], dtype=torch.float64),
    }


def cases(generator: Generator) -> list[Case]:
    """Several batches; some negatives score higher than the positive, on either side."""
    return [
        {
            "queries": draws.normal(generator, batch, width),
            "positives": draws.normal(generator, batch, width),
            "negatives": draws.normal(generator, batch, negatives, width),
            "teacher_positive": draws.normal(generator, batch, scale=2) + 1,
            "teacher_negative": draws.normal(generator, batch, negatives, scale=2),
        }
        for batch, negatives, width in ((5, 3, 4), (3, 2, 6), (4, 5, 3), (2, 4, 5))
    ]


def edges() -> list[Edge]:
    """As many negatives as queries, one negative, one query, a student whose margins are right."""
    case = example()
    names = ("negatives", "teacher_negative")
    right = {
        "teacher_positive": (case["queries"] * case["positives"]).sum(-1) + 7,
        "teacher_negative": torch.einsum("bd,bnd->bn", case["queries"], case["negatives"]) + 7,
    }
    return [
        Edge(
            "as many negatives as queries",
            case | {name: case[name][:, :2] for name in names},
            "There (B,) and (B, N) fit each other the wrong way round, and nobody complains.",
        ),
        Edge("one negative", case | {name: case[name][:, :1] for name in names}),
        Edge("one query", {name: value[:1] for name, value in case.items()}),
        Edge(
            "margins that are right, and scores that are not",
            case | right,
            "The teacher's scores are all larger by 7 there: the loss is 0.",
        ),
        Edge("float32", {name: value.float() for name, value in case.items()}),
    ]


def family(
    wrong: Wrong,
    queries: Tensor,
    positives: Tensor,
    negatives: Tensor,
    teacher_positive: Tensor,
    teacher_negative: Tensor,
) -> Tensor:
    """The loss with its switches."""
    q, d, n = queries, positives, negatives
    if "cosine" in wrong:
        q, d, n = (F.normalize(one, dim=-1) for one in (q, d, n))
    if "documents-detached" in wrong:
        d, n = d.detach(), n.detach()
    positive, negative = (q * d).sum(-1, keepdim=True), torch.einsum("bd,bnd->bn", q, n)
    if "distance" in wrong:
        positive, negative = -(q - d).norm(dim=-1)[:, None], -(q[:, None] - n).norm(dim=-1)
    if "averaged-over-width" in wrong:
        positive, negative = positive / q.shape[1], negative / q.shape[1]
    if "scaled-by-root" in wrong:
        positive, negative = positive / q.shape[1] ** 0.5, negative / q.shape[1] ** 0.5
    t_positive, t_negative = teacher_positive[:, None].detach(), teacher_negative.detach()
    if "sigmoids" in wrong:
        positive, negative = positive.sigmoid(), negative.sigmoid()
    if {"teacher-sigmoid", "sigmoids"} & wrong:
        t_positive, t_negative = t_positive.sigmoid(), t_negative.sigmoid()
    mine, theirs = positive - negative, t_positive - t_negative
    if "dimension-missing" in wrong:
        mine, theirs = positive[:, 0] - negative, t_positive[:, 0] - t_negative
    if "teacher-swapped" in wrong:
        theirs = -theirs
    if "absolute" in wrong:
        mine, theirs = mine.abs(), theirs.abs()
    if "sign-alone" in wrong:
        theirs = theirs.sign()
    gap = mine - theirs
    if "scores" in wrong:
        gap = torch.cat([positive - t_positive, negative - t_negative], 1)
    if "positives-alone" in wrong:
        gap = positive - t_positive
    if "negatives-alone" in wrong:
        gap = negative - t_negative
    if "negatives-averaged" in wrong:
        gap = gap.mean(1, keepdim=True)
    if "first-negative" in wrong:
        gap = gap[:, :1]
    if "hardest-negative" in wrong and gap.shape == negative.shape:
        gap = gap.gather(1, negative.argmax(1, keepdim=True))
    if "too-small-only" in wrong:
        gap = gap.clamp(max=0)
    terms = gap.abs() if "not-squared" in wrong else gap.square()
    if "huber" in wrong:
        terms = F.smooth_l1_loss(gap, torch.zeros_like(gap), reduction="none")
    if "listwise" in wrong:
        lists = torch.cat([positive, negative], 1), torch.cat([t_positive, t_negative], 1)
        return F.kl_div(lists[0].log_softmax(1), lists[1].softmax(1), reduction="batchmean")
    if "hinge" in wrong:
        terms = (1 - mine).relu()
    loss = terms.mean()
    if "scores-in-two-means" in wrong:
        loss = (positive - t_positive).square().mean() + (negative - t_negative).square().mean()
    if "summed" in wrong:
        loss = terms.sum()
    if "summed-over-negatives" in wrong:
        loss = terms.sum(1).mean()
    if "halved" in wrong:
        loss = loss / 2
    return loss.sqrt() if "rooted" in wrong else loss


drill = Drill(
    id="marginmse",
    title="MarginMSE for a bi-encoder",
    task=(
        "A cross-encoder reads query and document together and scores well, but slowly. A "
        "bi-encoder embeds them apart, so that documents can be indexed. Write the loss that "
        "teaches the second the first one's margins between a query's positive document and its "
        "negatives."
    ),
    minutes=6,
    level="warm-up",
    hints=(
        "The two models score on different scales, with different zeros. Which of the two does a "
        "difference of scores get rid of?",
        "Write down the shapes: how many positives has a query, how many negatives, and how many "
        "margins are there in all?",
        "(B,) and (B, N) are to be subtracted. Where does broadcasting put the missing dimension, "
        "and where does it belong?",
    ),
    explanation=(
        "O(BND). Only differences count, so the student may choose its own zero: adding a constant "
        "to all scores of a query changes nothing, on either side. Its scale it may not choose, "
        "which is why the student's score is an unbounded dot product: cosines lie between -1 and "
        "1 and cannot reach margins of 10. Sigmoids of the teacher's scores would squeeze just the "
        "large margins. Labels are not needed, and a negative that is in truth relevant does no "
        "harm: its teacher margin is small or negative, and so the student's is to be. `positive` "
        "needs its last dimension: (B,) minus (B, N) fails, and where B = N it does not and "
        "compares queries with each other. The interviewer listens for: margins against scores, "
        "the sign, dot product against cosine, where the negatives come from. Source: [Hofstätter "
        "et al., 2020](cite:hofstatter2020improving)."
    ),
    reference=margin_mse,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # score
        - cosine: the student's score is a cosine: it lies between -1 and 1, and a cross-encoder's
          margins do not. Asked for is the dot product.
        - distance: the student's score is a negative distance: asked for is the dot product.
        - averaged-over-width: the products are averaged over the width, D = {D}: the dot product is
          their sum.
        - scaled-by-root: the scores are divided by the root of the width: that belongs to
          attention.
        # margin
        - scores: scores are compared, not margins: the teacher's zero is then the student's, which
          nobody needs. Subtract first, compare then.
        - scores-in-two-means: the scores of positives and negatives are compared, each kind by
          itself, not the margins: the teacher's zero is then the student's, which nobody needs.
        - positives-alone: only the scores of the positives are compared: the negatives are missing.
        - negatives-alone: only the scores of the negatives are compared: the positives are missing.
        - teacher-swapped: one of the two margins is negative minus positive: the student is taught
          to turn the order around.
        - absolute: the margins are taken without their signs: a student that ranks the wrong way
          round by as much would be right.
          Seen claimed: by docstrings that huggingface/sentence-transformers pull request 4009
          corrects; the code had the sign
        - sign-alone: of the teacher only the sign of the margin is used: how large it is, is what
          it has to teach.
        - hinge: this is a hinge loss with margin 1: the teacher is not asked.
        - listwise: this is the KL of softmaxes over each query's documents: a good loss, and
          another one.
        - too-small-only: only margins that are smaller than the teacher's cost anything: those that
          are larger are wrong too.
        # negatives
        - negatives-averaged: the margins of a query are averaged before they are compared: errors
          of opposite sign cancel. Compare each.
        - first-negative: only the first negative of each query counts: there are N = {N}.
        - hardest-negative: only the negative that the student scores highest counts: there are N =
          {N}.
        # distance
        - not-squared: the differences are not squared.
        - huber: this is a smooth L1: it is the square only while a difference is small.
        - rooted: a root is taken of the mean of squares: leave it out.
        - halved: the loss is halved: there is no 1/2 in what the task asks for.
        # shape
        - dimension-missing: (B,) minus (B, N) does not fit, and where B = N it fits and takes each
          positive for another query's: keep the last dimension of the positives' scores.
        # reduction
        - summed: the squares are summed over batch and negatives, not averaged.
        - summed-over-negatives: the squares are summed over the N = {N} negatives and averaged over
          the batch: there are B · N margins to average.
        # teacher
        - teacher-sigmoid: the teacher's scores go through a sigmoid: its margins are then smaller
          than 1, and the large ones look alike. Use the scores as they are.
        - sigmoids: both sides' scores go through a sigmoid: margins are then smaller than 1, and
          the large ones look alike. Use the scores as they are.
        # gradient
        - documents-detached: only the queries get a gradient: the documents are the student's
          embeddings as well.
        """
    ),
    sizes=lambda case: {
        "B": case["negatives"].shape[0],
        "N": case["negatives"].shape[1],
        "D": case["negatives"].shape[2],
    },
    gradients=("queries", "positives", "negatives"),
    detached=("teacher_positive", "teacher_negative"),
)
