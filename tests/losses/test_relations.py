"""Losses on relations between samples against loops in numpy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradgradcheck
from torch.nn import functional as F

from kdlearn import losses

few = settings(max_examples=15, deadline=None)


@st.composite
def embedding_pairs(draw):
    batch = draw(st.integers(2, 6))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    return tuple(
        torch.randn(batch, draw(st.integers(2, 6)), dtype=torch.float64, generator=generator)
        for _ in range(2)
    )


def unit_rows(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def huber(gap):
    return np.where(np.abs(gap) < 1, gap**2 / 2, np.abs(gap) - 0.5).mean()


@given(embedding_pairs())
@few
def test_similarity_preserving_matches_the_closed_form(pair):
    gap = np.subtract(*(unit_rows(side.numpy() @ side.numpy().T) for side in pair))
    expected = np.linalg.norm(gap) ** 2 / len(gap) ** 2
    loss = losses.similarity_preserving_loss(*pair)
    assert loss.item() == pytest.approx(expected, abs=1e-12)


@given(embedding_pairs())
@few
def test_relative_distances_match_a_double_loop(pair):
    def distances(x):
        d = np.array([[np.linalg.norm(a - b) for a in x] for b in x])
        return d / d[~np.eye(len(x), dtype=bool)].mean()

    expected = huber(np.subtract(*(distances(side.numpy()) for side in pair)))
    assert losses.rkd_distance_loss(*pair).item() == pytest.approx(expected, abs=1e-9)


def test_equal_samples_are_a_millionth_apart():
    student = torch.tensor([[0.0, 0.0], [0.0, 0.0], [3.0, 4.0]], dtype=torch.float64)
    teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], dtype=torch.float64)
    apart = torch.tensor([[0, 1e-6, 5], [1e-6, 0, 5], [5, 5, 0]], dtype=torch.float64)
    root = [5**0.5, 13**0.5, 10**0.5]  # the teacher's distances 01, 02 and 12
    wanted = torch.tensor(
        [[0, root[0], root[1]], [root[0], 0, root[2]], [root[1], root[2], 0]], dtype=torch.float64
    )
    gap = apart * 6 / apart.sum() - wanted * 6 / wanted.sum()
    loss = losses.rkd_distance_loss(student, teacher)
    assert loss.item() == pytest.approx(huber(gap.numpy()), rel=1e-9)


@given(embedding_pairs())
@few
def test_angles_match_a_triple_loop(pair):
    def angles(x):
        n = len(x)
        cosines = np.zeros((n, n, n))
        for i, j, k in np.ndindex(n, n, n):
            if i not in (j, k):
                a, b = x[j] - x[i], x[k] - x[i]
                cosines[i, j, k] = a @ b / np.linalg.norm(a) / np.linalg.norm(b)
        return cosines

    expected = huber(np.subtract(*(angles(side.numpy()) for side in pair)))
    assert losses.rkd_angle_loss(*pair).item() == pytest.approx(expected, abs=1e-12)


def test_great_gaps_count_by_their_size_not_by_its_square():
    """Three samples of which two nearly coincide: relative distances differ by more than 1."""
    student = torch.tensor([[0.0], [1e-3], [9.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0], [9.0], [1e-3]], dtype=torch.float64)
    gap = 2 * 1.5  # two of the three distances, each side of the diagonal, differ by 1.5
    expected = 2 * gap / 2 * (1 - 0.5 / 1.5) * 2 / 9
    loss = losses.rkd_distance_loss(student, teacher).item()
    assert loss == pytest.approx(expected, rel=1e-2)


@given(embedding_pairs())
@few
def test_neighbor_probabilities_match_the_closed_form(pair):
    def neighbors(x):
        x = x / (np.linalg.norm(x, axis=1, keepdims=True) + 1e-7)
        closeness = (x @ x.T + 1) / 2
        return closeness / closeness.sum(1, keepdims=True) + 1e-7

    student, teacher = (neighbors(side.numpy()) for side in pair)
    expected = ((teacher - 1e-7) * np.log(teacher / student)).mean()
    assert losses.pkt_loss(*pair).item() == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("batch", [2, 5])
def test_errors_of_neighbors_match_a_loop(batch):
    student, teacher = torch.randn(2, batch, 3, dtype=torch.float64)
    error = (student - teacher).abs().numpy()
    products = [(error[i] * error[i + 1]).sum() for i in range(batch - 1)]
    expected = np.mean(products)
    loss = losses.correlation_congruence_loss(student, teacher)
    assert loss.item() == pytest.approx(expected)


@given(st.integers(2, 6), st.floats(0.05, 2), st.integers(0, 10**6))
@few
def test_contrast_matches_the_closed_form(batch, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = torch.randn(2, batch, 5, dtype=torch.float64, generator=generator)
    cosines = unit_rows(student.numpy()) @ unit_rows(teacher.numpy()).T / temperature
    own = np.diag(cosines)
    forth = np.log(np.exp(cosines).sum(1)) - own
    back = np.log(np.exp(cosines).sum(0)) - own
    loss = losses.contrastive_loss(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx((forth.mean() + back.mean()) / 2, rel=1e-7, abs=1e-9)


def test_contrast_has_the_temperature_of_crd():
    student, teacher = torch.randn(2, 4, 5)
    explicit = losses.contrastive_loss(student, teacher, temperature=0.07)
    assert losses.contrastive_loss(student, teacher) == explicit


@given(st.integers(1, 5), st.integers(1, 6), st.floats(0.05, 2), st.integers(0, 10**6))
@few
def test_crd_matches_the_critic_of_the_paper(batch, negatives, temperature, seed):
    generator = torch.Generator().manual_seed(seed)
    samples = 8
    student = torch.randn(batch, 5, dtype=torch.float64, generator=generator)
    memory = torch.randn(samples, 5, dtype=torch.float64, generator=generator)
    places = torch.randint(samples, (batch, 1 + negatives), generator=generator)
    cosines = unit_rows(student.numpy()) @ unit_rows(memory.numpy()).T
    expected = 0.0
    for cosine, row in zip(cosines, places.numpy(), strict=True):
        raised = np.exp(cosine[row] / temperature)
        critic = raised / (raised + negatives / samples)
        expected -= np.log(critic[0]) + np.log(1 - critic[1:]).sum()
    loss = losses.crd_loss(
        student, memory, places, normalizer=1 / samples, temperature=temperature
    ).item()
    assert loss == pytest.approx(expected / batch, rel=1e-7, abs=1e-9)


def test_a_critic_that_is_sure_keeps_its_gradient():
    """A sigmoid of 100 is 1 in float32, and the logarithm of what is left of it is -100."""
    student = torch.tensor([[1.0, 0.0]], requires_grad=True)
    places = torch.tensor([[0, 1]])
    loss = losses.crd_loss(student, torch.eye(2).flip(0), places, normalizer=1.0, temperature=0.01)
    loss.backward()
    assert loss.item() == pytest.approx(100 + np.log(2), rel=1e-5)
    assert student.grad[0, 1].item() == pytest.approx(-50, rel=1e-5)


CROSSED = torch.tensor([[0, 1], [1, 0]])


@pytest.mark.parametrize(
    ("student", "memory", "places", "error", "message"),
    [
        ((2, 3), (4, 5), CROSSED, ValueError, r"\(2, 3\), teacher \(4, 5\): .* of one width"),
        ((3,), (4, 3), CROSSED, ValueError, r"give \(batch, width\) and \(memory, width\)"),
        ((2, 3), (4, 3), CROSSED.int(), TypeError, r"torch.int64, got torch.int32"),
        ((2, 3), (4, 3), [[0, 1]], TypeError, r"torch.int64, got list"),
        ((2, 3), (4, 3), CROSSED[:, :1], ValueError, r"first and at least one other"),
        ((2, 3), (4, 3), CROSSED[:1], ValueError, r"give \(batch, 1 \+ negatives\)"),
        ((2, 3), (4, 3), 4 * CROSSED, ValueError, r"places go from 0 to 4: each must be a row"),
        ((2, 3), (4, 3), -CROSSED, ValueError, r"places go from -1 to 0"),
    ],
)
def test_crd_refuses_places_that_are_none(student, memory, places, error, message):
    with pytest.raises(error, match=message):
        losses.crd_loss(torch.ones(student), torch.ones(memory), places, normalizer=1.0)


@pytest.mark.parametrize("normalizer", [0, -1.0, float("inf"), float("nan")])
def test_crd_refuses_a_mean_of_exponentials_that_is_none(normalizer):
    with pytest.raises(ValueError, match=r"normalizer is .* expected a positive finite number"):
        losses.crd_loss(torch.eye(2), torch.eye(2), CROSSED, normalizer=normalizer)


ALL = [
    "similarity_preserving_loss",
    "rkd_distance_loss",
    "rkd_angle_loss",
    "pkt_loss",
    "correlation_congruence_loss",
    "contrastive_loss",
]


@pytest.mark.parametrize("name", ALL)
def test_feature_maps_are_flattened(name):
    student, teacher = torch.randn(2, 4, 3, 2, 2)
    loss = getattr(losses, name)
    torch.testing.assert_close(loss(student, teacher), loss(student.flatten(1), teacher.flatten(1)))


@pytest.mark.parametrize("name", [name for name in ALL if name != "contrastive_loss"])
def test_equal_samples_keep_the_gradient_finite(name):
    student = torch.ones(4, 5, requires_grad=True)
    value = getattr(losses, name)(student, torch.randn(4, 5))
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_equal_samples_have_no_angle_to_learn():
    student = torch.ones(3, 4, requires_grad=True)
    losses.rkd_angle_loss(student, torch.randn(3, 4)).backward()
    assert student.grad.abs().max() == 0


@pytest.mark.parametrize("name", ALL)
def test_a_silent_sample_keeps_the_gradient_small(name):
    torch.manual_seed(0)
    student = torch.randn(4, 5)
    student[2] = 0
    student.requires_grad_()
    getattr(losses, name)(student, torch.randn(4, 5)).backward()
    # pkt divides by length + 1e-7 as its authors do.
    assert student.grad.abs().max() < (1e7 if name == "pkt_loss" else 1e2)


@pytest.mark.parametrize("name", ALL)
def test_one_sample_has_no_relation(name):
    with pytest.raises(ValueError, match=r"^one sample of .* has no relation .*drop_last=True"):
        getattr(losses, name)(torch.randn(1, 5), torch.randn(1, 5))


@pytest.mark.parametrize("name", ["rkd_distance_loss", "rkd_angle_loss"])
def test_a_mean_far_from_zero_takes_no_precision_away(name):
    torch.manual_seed(0)
    student, teacher = 1000 + torch.randn(2, 8, 16)
    loss = getattr(losses, name)
    exact, given = student.double().requires_grad_(), student.requires_grad_()
    right, value = loss(exact, teacher.double()), loss(given, teacher)
    right.backward()
    value.backward()
    torch.testing.assert_close(value.double(), right, rtol=1e-5, atol=0)
    torch.testing.assert_close(given.grad.double(), exact.grad, rtol=1e-4, atol=1e-8)


def test_pkt_refuses_vectors_whose_lengths_overflow():
    with pytest.raises(ValueError, match=r"so large that their squares leave torch.float32"):
        losses.pkt_loss(torch.full((3, 5), 3e38), torch.randn(3, 5))


def explicit_distance_loss(student, teacher):
    def relative(x):
        apart = (x[:, None] - x).square().sum(2).clamp_min(1e-12)
        distances = apart.sqrt() * (1 - torch.eye(len(x), dtype=x.dtype))
        return distances * (len(x) * (len(x) - 1)) / distances.sum()

    return F.smooth_l1_loss(relative(student), relative(teacher))


@pytest.mark.parametrize("shape", [(64, 512), (16, 128), (6, 5)])
@pytest.mark.parametrize("size", [0.1, 1.0, 10.0, 1000.0])
@pytest.mark.parametrize("apart", [1e-1, 3e-2, 1e-2, 3e-3, 1e-3, 1e-4, 1e-5, 0.0])
def test_samples_that_nearly_coincide_have_the_gradient_of_their_differences(shape, size, apart):
    torch.manual_seed(0)
    student, teacher = size * torch.randn(shape), torch.randn(shape)
    student[1] = student[0] + apart * torch.randn(shape[1])
    student[4:6] = student[3]  # three of a kind, and equal
    given, exact = student.clone().requires_grad_(), student.double().requires_grad_()
    value = losses.rkd_distance_loss(given, teacher)
    right = explicit_distance_loss(exact, teacher.double())
    torch.testing.assert_close(value.double(), right, rtol=1e-5, atol=0)
    (found,), (wanted,) = (torch.autograd.grad(v, x) for v, x in ((value, given), (right, exact)))
    # Of each sample for itself: what lies between near ones would be lost in those of the others.
    off = (found.double() - wanted).norm(dim=1) / wanted.norm(dim=1)
    assert off.max() < 1e-3


def test_near_samples_have_the_second_derivative_of_finite_differences():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, dtype=torch.float64)
    student[1] = student[0] + 1e-2 * torch.randn(3, dtype=torch.float64)
    student.requires_grad_()
    assert gradgradcheck(lambda s: losses.rkd_distance_loss(s, teacher), student, eps=1e-7)


@pytest.mark.parametrize("name", ["correlation_congruence_loss", "contrastive_loss"])
def test_other_widths_want_a_projector(name):
    with pytest.raises(
        ValueError, match=r"bring both to one width with projectors.LinearProjector"
    ):
        getattr(losses, name)(torch.zeros(2, 4), torch.zeros(2, 5))


@pytest.mark.parametrize("name", ALL[:4])
@pytest.mark.parametrize("shapes", [((2, 4), (3, 4)), ((2,), (2, 4)), ((2, 4), (2,))])
def test_both_sides_need_the_same_samples(name, shapes):
    with pytest.raises(ValueError, match=r"need shape \(batch, ...\) with one batch on both sides"):
        getattr(losses, name)(*(torch.ones(shape) for shape in shapes))


@pytest.mark.parametrize("name", ["contrastive_loss", "correlation_congruence_loss"])
def test_vectors_without_a_batch_are_refused(name):
    with pytest.raises(ValueError, match=r"need shape \(batch, ...\)"):
        getattr(losses, name)(torch.ones(3), torch.ones(3))
