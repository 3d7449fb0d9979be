"""What each loss costs, as a share of one training step of a student; and what our forms save.

    OMP_NUM_THREADS=1 python benchmarks/losses.py [--output kdlearn/results/loss_cost.csv]

For images the student is a WRN-16-2 on a batch of 128 images of 3x32x32; for losses inside a
transformer it has 2 layers of width 128 and reads 16 sequences of 64 tokens from a vocabulary of
8,000. Losses on that vocabulary are compared with the forward KL: what share of a step they are
depends on vocabulary and width alone. A loss is timed forward and backward, on tensors of the
shapes that these networks have; the losses on gradients of the image are timed with the forward and
the double backward pass that make these gradients. Everything runs on one thread, in a new random
order each round; times are CPU times of the process. A share is taken within a round, so other work
on the machine moves both of its sides; the tables have medians over the rounds, the file also
quartiles.

Three tables follow: soft targets with and without checks of values beside the line that everybody
writes; losses on a vocabulary whole, in chunks and from hidden states, in time and in tensors of
(tokens, vocabulary) alive at one time besides the inputs (`--tokens 4096 --vocabulary 32000` is a
full size); NST and FSP by products.
"""

import argparse
import functools
import statistics
from collections.abc import Callable

import torch
from common import measure, quartiles, write
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn import losses
from kdlearn.core import checks
from kdlearn.losses.maps import input_gradients
from kdlearn.measure.cost import _Memory as Memory
from kdlearn.models import SlimWRN

BATCH, CLASSES = 128, 100
GROUPS = [(32, 32), (64, 16), (128, 8)]  # channels, side
TOKENS, VOCABULARY, WIDTH, HEADS = (16, 64), 8000, 128, 4
Job = Callable[[], Tensor]
IMAGE_MODEL, IMAGE_BATCH = "WRN-16-2", f"{BATCH} x 3 x 32 x 32"
TEXT_MODEL = f"2-layer transformer, width {WIDTH}, vocabulary {VOCABULARY}"
TEXT_BATCH = " x ".join(map(str, TOKENS))
COLUMNS = ["kind", "loss", "share", "low", "high", "milliseconds", "rounds", "model", "batch"]


def text_step() -> Job:
    """Forward, cross-entropy, backward and SGD of a small transformer."""
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, batch_first=True)
    model = nn.Sequential(
        nn.Embedding(VOCABULARY, WIDTH),
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Linear(WIDTH, VOCABULARY),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    tokens, labels = (torch.randint(VOCABULARY, TOKENS) for _ in range(2))

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(tokens).flatten(0, 1), labels.flatten())
        loss.backward()
        optimizer.step()
        return loss

    return step


def image_student() -> SlimWRN:
    """A WRN-16-2."""
    return SlimWRN((32, 64, 128), blocks=2, classes=CLASSES, channels=3)


def student_step() -> Job:
    """Forward, cross-entropy, backward and SGD of the student."""
    model = image_student()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    images, labels = torch.randn(BATCH, 3, 32, 32), torch.randint(CLASSES, (BATCH,))

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def loss_job(loss: Callable[[Tensor, Tensor], Tensor], *shapes: tuple[int, ...]) -> Job:
    """Forward and backward of a loss, summed over one pair of tensors for each shape."""
    pairs = [(torch.randn(shape, requires_grad=True), torch.randn(shape)) for shape in shapes]

    def job() -> Tensor:
        for student, _ in pairs:
            student.grad = None
        total = torch.stack([loss(student, teacher) for student, teacher in pairs]).sum()
        total.backward()
        return total

    return job


def gradient_job(loss: Callable[[Tensor, Tensor], Tensor], *, flips: bool) -> Job:
    """Gradients of the images, a loss on them, and its backward pass into the student's weights."""
    model, labels = image_student(), torch.randint(CLASSES, (BATCH,))
    images, stored = torch.randn(2, BATCH, 3, 32, 32)

    def gradients(batch: Tensor) -> Tensor:
        batch = batch.detach().requires_grad_()
        return input_gradients(model(batch), labels, batch)

    def job() -> Tensor:
        model.zero_grad()
        total = loss(gradients(images), gradients(images.flip(-1)) if flips else stored)
        total.backward()
        return total

    return job


def flow(loss: Callable[..., Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """FSP between a layer and a layer of the same shape."""
    return lambda student, teacher: loss((student, student.flip(1)), (teacher, teacher.flip(1)))


def broadcast_nst(student: Tensor, teacher: Tensor) -> Tensor:
    """The definition of NST, with a tensor of every pair of channels at every position."""

    def kernel(left: Tensor, right: Tensor) -> Tensor:
        return (left[:, None] * right[:, :, None]).sum(-1).square().mean()

    student, teacher = (F.normalize(side.flatten(2), dim=2) for side in (student, teacher))
    return kernel(teacher, teacher) + kernel(student, student) - 2 * kernel(student, teacher)


def broadcast_fsp(student: tuple[Tensor, Tensor], teacher: tuple[Tensor, Tensor]) -> Tensor:
    """The definition of FSP, with a tensor of every pair of channels at every position."""

    def matrix(first: Tensor, last: Tensor) -> Tensor:
        return (first.flatten(2)[:, :, None] * last.flatten(2)[:, None]).mean(-1)

    return F.mse_loss(matrix(*student), matrix(*teacher))


def image_jobs() -> dict[str, Job]:
    """Losses on the shapes of the image student's layers, one job each."""
    groups = [(BATCH, channels, side, side) for channels, side in GROUPS]
    labels = torch.randint(CLASSES, (BATCH,))
    wide = (BATCH, 64, 32, 32)
    logits, embeddings = (BATCH, CLASSES), (BATCH, 128)
    vid, mgd = losses.VIDLoss(64, 64), losses.MGDLoss(64, 64)
    return {
        "soft_target_loss": loss_job(losses.soft_target_loss, logits),
        "soft_cross_entropy": loss_job(losses.soft_cross_entropy, logits),
        "logit_mse_loss": loss_job(losses.logit_mse_loss, logits),
        "distillation_loss": loss_job(with_labels(losses.distillation_loss, labels), logits),
        "target_class_loss": loss_job(with_labels(losses.target_class_loss, labels), logits),
        "nontarget_class_loss": loss_job(with_labels(losses.nontarget_class_loss, labels), logits),
        "dkd_loss": loss_job(with_labels(losses.dkd_loss, labels), logits),
        "dist_loss": loss_job(losses.dist_loss, logits),
        "standardize_logits, soft targets": loss_job(standardized, logits),
        "deit_soft_loss": loss_job(two_heads(losses.deit_soft_loss, labels), logits),
        "deit_hard_loss": loss_job(two_heads(losses.deit_hard_loss, labels), logits),
        "binary_distillation_loss": loss_job(losses.binary_distillation_loss, logits),
        "multi_label_distillation_loss": loss_job(losses.multi_label_distillation_loss, logits),
        "attention_transfer_loss, 3 groups": loss_job(losses.attention_transfer_loss, *groups),
        "gradient_attention_loss, double backward": gradient_job(
            losses.gradient_attention_loss, flips=False
        ),
        "flip_symmetry_loss, double backward": gradient_job(losses.flip_symmetry_loss, flips=True),
        "hint_loss, group 2": loss_job(losses.hint_loss, groups[1]),
        "hcl_loss, 3 groups": loss_job(losses.hcl_loss, *groups),
        "activation_boundary_loss, 3 groups": loss_job(losses.activation_boundary_loss, *groups),
        "factor_transfer_loss, group 3": loss_job(losses.factor_transfer_loss, groups[2]),
        "similarity_preserving_loss, group 3": loss_job(
            losses.similarity_preserving_loss, groups[2]
        ),
        "rkd_distance_loss": loss_job(losses.rkd_distance_loss, embeddings),
        "rkd_angle_loss": loss_job(losses.rkd_angle_loss, embeddings),
        "pkt_loss": loss_job(losses.pkt_loss, embeddings),
        "correlation_congruence_loss": loss_job(losses.correlation_congruence_loss, embeddings),
        "contrastive_loss": loss_job(losses.contrastive_loss, embeddings),
        "crd_loss, 16,384 of 50,000": loss_job(remembered(50_000, 16_384), embeddings),
        "nst_loss, 64 x 32 x 32": loss_job(losses.nst_loss, wide),
        "fsp_loss, 64 x 32 x 32": loss_job(flow(losses.fsp_loss), wide),
        "VIDLoss, group 2, with its network": loss_job(vid, groups[1]),
        "MGDLoss, group 2, with its network": loss_job(mgd, groups[1]),
    }


def with_labels(loss: Callable[..., Tensor], labels: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss that reads labels, as one of two tensors."""
    return lambda student, teacher: loss(student, teacher, labels)


def remembered(samples: int, negatives: int) -> Callable[[Tensor, Tensor], Tensor]:
    """One half of CRD, with a memory of its own in place of the teacher's batch."""
    memory, places = torch.randn(samples, 128), torch.randint(samples, (BATCH, 1 + negatives))
    return lambda student, teacher: losses.crd_loss(student, memory, places, normalizer=3.0)


def two_heads(loss: Callable[..., Tensor], labels: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of two heads of the student, as one of two tensors."""
    return lambda student, teacher: loss(student, student, teacher, labels)


def standardized(student: Tensor, teacher: Tensor) -> Tensor:
    """Soft targets of standardized logits."""
    sides = losses.standardize_logits(student), losses.standardize_logits(teacher)
    return losses.soft_target_loss(*sides)


def transformer_jobs() -> dict[str, Job]:
    """Losses inside the transformer, one layer each."""
    batch, length = TOKENS
    states, scores = (*TOKENS, WIDTH), (batch, HEADS, length, length)

    def relation(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.relation_loss(student, teacher, relation_heads=HEADS)

    return {
        "attention_score_loss": loss_job(losses.attention_score_loss, scores),
        "attention_distribution_loss": loss_job(losses.attention_distribution_loss, scores),
        "vit_attention_loss": loss_job(losses.vit_attention_loss, scores),
        "relation_loss": loss_job(relation, states),
        "hidden_state_loss": loss_job(losses.hidden_state_loss, states),
        "forward_kl": loss_job(losses.forward_kl, (*TOKENS, VOCABULARY)),
    }


def vocabulary_jobs() -> dict[str, Job]:
    """Losses on the probabilities of all next tokens."""
    logits = (*TOKENS, VOCABULARY)
    stored, indices = torch.randn(logits).log_softmax(-1).topk(64, dim=-1)
    tokens = torch.randint(VOCABULARY, TOKENS)
    head = torch.randn(VOCABULARY, WIDTH) / WIDTH**0.5

    def fused(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.linear_distillation_loss(student, head, teacher, head)

    def next_tokens(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.cross_entropy(student, tokens)

    def top_k(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.top_k_kl(student, stored, indices)

    def sampled(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.sampled_kl(student, stored, indices)

    def sequence(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.sequence_reverse_kl(student, teacher, tokens)

    def drawn(student: Tensor, teacher: Tensor) -> Tensor:
        return losses.sampled_reverse_kl(student, teacher, tokens)

    return {
        "reverse_kl": loss_job(losses.reverse_kl, logits),
        "skew_kl": loss_job(losses.skew_kl, logits),
        "generalized_jsd": loss_job(losses.generalized_jsd, logits),
        "total_variation": loss_job(losses.total_variation, logits),
        "uld_loss": loss_job(losses.uld_loss, logits),
        "top_k_kl, k = 64": loss_job(top_k, logits),
        "sampled_kl, 64 draws": loss_job(sampled, logits),
        "sequence_reverse_kl": loss_job(sequence, logits),
        "sampled_reverse_kl": loss_job(drawn, logits),
        "cross_entropy": loss_job(next_tokens, logits),
        "linear_distillation_loss, with its heads": loss_job(fused, (*TOKENS, WIDTH)),
    }


def main() -> None:
    """Print all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--vocabulary", type=int, default=VOCABULARY)
    parser.add_argument("--output", help="write the shares to this CSV file too")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)

    lines: list[list[object]] = []
    whole = loss_job(losses.forward_kl, (*TOKENS, VOCABULARY))
    image, text = (IMAGE_MODEL, IMAGE_BATCH), (TEXT_MODEL, TEXT_BATCH)
    for kind, model, reference, job, jobs in (
        ("image", image, "student step", student_step(), image_jobs()),
        ("transformer", text, "student step", text_step(), transformer_jobs()),
        ("vocabulary", text, "forward_kl", whole, vocabulary_jobs()),
    ):
        table = measure({reference: job} | jobs, rounds)
        print(f"{kind + ': loss, forward and backward':42}{'ms':>8}  of {reference}")
        for name, times in table.items():
            middle = statistics.median(times)
            low, share, high = (100 * ratio for ratio in quartiles(times, table[reference]))
            print(f"{name:42}{middle:8.2f}{share:11.2f}%")
            numbers = [f"{number:.3f}" for number in (share, low, high, middle)]
            lines.append([kind, name, *numbers, rounds, *model])
        print()
    if arguments.output:
        write(arguments.output, COLUMNS, lines)

    compare_checks(rounds)
    compare_memory(rounds, arguments.tokens, arguments.vocabulary)
    compare_products(rounds)


def compare_checks(rounds: int) -> None:
    """Soft targets on small logits, where what is not arithmetic weighs most."""

    def by_hand(student: Tensor, teacher: Tensor) -> Tensor:
        inputs, target = F.log_softmax(student / 4, dim=1), F.softmax(teacher / 4, dim=1)
        return F.kl_div(inputs, target, reduction="batchmean") * 4**2

    def unchecked(student: Tensor, teacher: Tensor) -> Tensor:
        checks.CHECKS = False
        try:
            return losses.soft_target_loss(student, teacher)
        finally:
            checks.CHECKS = True

    def often(job: Job) -> Job:
        return lambda: [job() for _ in range(200)][-1]

    forms = {"F.kl_div by hand": by_hand, "checked": losses.soft_target_loss, "not": unchecked}
    table = measure(
        {name: often(loss_job(loss, (BATCH, CLASSES))) for name, loss in forms.items()}, rounds
    )
    print(f"{f'soft targets of {BATCH} x {CLASSES}':36}{'us':>8}{'of by hand':>14}")
    for name, times in table.items():
        ratio = quartiles(times, table["F.kl_div by hand"])[1]
        print(f"{name:36}{5 * statistics.median(times):8.1f}{ratio:14.2f}")
    print()


def by_hand_kl(student: Tensor, teacher: Tensor) -> Tensor:
    """The forward KL as it is usually written."""
    inputs, target = F.log_softmax(student, dim=-1), F.log_softmax(teacher, dim=-1)
    return F.kl_div(inputs, target, reduction="batchmean", log_target=True)


def compare_memory(rounds: int, tokens: int, vocabulary: int) -> None:
    """Losses on a vocabulary in one piece and in chunks; the teacher's logits, or hidden states."""
    buffer = 4 * tokens * vocabulary
    student = torch.randn(tokens, vocabulary, requires_grad=True)
    teacher = torch.randn(tokens, vocabulary)
    names = ["forward_kl", "reverse_kl", "generalized_jsd", "skew_kl", "total_variation"]
    leaves: dict[str, list[Tensor]] = {"F.kl_div by hand": [student]}
    forms: dict[str, Callable[[], Tensor]] = {
        "F.kl_div by hand": functools.partial(by_hand_kl, student, teacher)
    }
    for name in names:
        loss = getattr(losses, name)
        forms[name] = functools.partial(loss, student, teacher)
        forms[f"{name}, chunk=128"] = functools.partial(loss, student, teacher, chunk=128)
    hidden = torch.randn(tokens, 2 * WIDTH, requires_grad=True)
    head, frozen = nn.Linear(2 * WIDTH, vocabulary), torch.randn(vocabulary, 2 * WIDTH) / 16
    forms["heads, then F.kl_div by hand"] = lambda: by_hand_kl(
        head(hidden), hidden.detach() @ frozen.T
    )
    forms["linear_distillation_loss"] = lambda: losses.linear_distillation_loss(
        hidden, head, hidden.detach(), frozen
    )
    for name in forms:
        leaves[name] = [hidden, head.weight] if "head" in name or "linear" in name else [student]

    def step(name: str) -> Job:
        return lambda: torch.autograd.grad(forms[name](), leaves[name])[0]

    table = measure({name: step(name) for name in forms}, rounds)
    print(f"{f'{tokens} tokens x {vocabulary}':36}{'ms':>8}{'of the whole':>14}{'buffers':>10}")
    for name, times in table.items():
        with Memory() as memory:
            step(name)()
        whole = name.removesuffix(", chunk=128")
        whole = "heads, then F.kl_div by hand" if name == "linear_distillation_loss" else whole
        ratio = quartiles(times, table[whole])[1]
        print(f"{name:36}{statistics.median(times):8.0f}{ratio:14.2f}{memory.peak / buffer:10.2f}")
    print()


def compare_products(rounds: int) -> None:
    """NST and FSP by matrix products and by their definitions."""
    small = (16, 64, 32, 32)
    forms = {
        "NST, products": loss_job(losses.nst_loss, small),
        "NST, broadcast": loss_job(broadcast_nst, small),
        "FSP, products": loss_job(flow(losses.fsp_loss), small),
        "FSP, broadcast": loss_job(flow(broadcast_fsp), small),
    }
    middles = {name: statistics.median(times) for name, times in measure(forms, rounds).items()}
    print(f"{'batch of 16, 64 channels, 32x32':36}{'ms':>8}{'broadcast / products':>24}")
    for name in ("NST", "FSP"):
        products, broadcast = middles[f"{name}, products"], middles[f"{name}, broadcast"]
        print(f"{name:36}{products:8.2f}{broadcast / products:23.1f}x")


if __name__ == "__main__":
    main()
