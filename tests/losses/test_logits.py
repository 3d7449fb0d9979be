"""Losses on logits against closed forms in numpy, limits, and the messages of their own."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from kdlearn import losses

few = settings(max_examples=20, deadline=None)
temperatures = st.floats(0.5, 10)


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


@st.composite
def logit_pairs(draw):
    rows, classes = draw(st.integers(1, 6)), draw(st.integers(2, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    size = draw(st.floats(0.1, 5))
    pair = size * torch.randn(2, rows, classes, dtype=torch.float64, generator=generator)
    labels = torch.randint(classes, (rows,), generator=generator)
    return pair[0], pair[1], labels


@given(logit_pairs(), temperatures)
@few
def test_soft_targets_match_the_closed_form(pair, temperature):
    student, teacher, _ = pair
    q, p = softmax(student.numpy() / temperature), softmax(teacher.numpy() / temperature)
    loss = losses.soft_target_loss(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx(temperature**2 * kl(p, q).mean(), rel=1e-9, abs=1e-12)


@given(logit_pairs(), temperatures)
@few
def test_the_soft_gradient_is_the_difference_of_probabilities(pair, temperature):
    student, teacher, _ = pair
    losses.soft_target_loss(student.requires_grad_(), teacher, temperature=temperature).backward()
    gap = F.softmax(student.detach() / temperature, -1) - F.softmax(teacher / temperature, -1)
    torch.testing.assert_close(
        student.grad, temperature * gap / len(student), rtol=1e-7, atol=1e-12
    )


def test_all_leading_dimensions_are_rows():
    student, teacher = torch.randn(2, 3, 4, 5)
    flat = losses.soft_target_loss(student.flatten(0, 1), teacher.flatten(0, 1))
    torch.testing.assert_close(losses.soft_target_loss(student, teacher), flat)
    labels = torch.randint(5, (3, 4))
    both = losses.distillation_loss(student, teacher, labels)
    expected = 0.9 * flat + 0.1 * F.cross_entropy(student.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(both, expected)


def test_the_default_temperature_is_four():
    student, teacher = torch.randn(2, 3, 5)
    explicit = losses.soft_target_loss(student, teacher, temperature=4.0)
    assert losses.soft_target_loss(student, teacher) == explicit
    labels = torch.tensor([0, 1, 2])
    for name in ("distillation_loss", "target_class_loss", "nontarget_class_loss", "dkd_loss"):
        loss = getattr(losses, name)
        assert loss(student, teacher, labels) == loss(student, teacher, labels, temperature=4.0)


def test_a_great_temperature_compares_centered_logits():
    student, teacher = torch.randn(2, 4, 10, dtype=torch.float64)
    gap = student - teacher
    limit = (gap - gap.mean(-1, keepdim=True)).square().sum(-1).mean() / 20
    loss = losses.soft_target_loss(student, teacher, temperature=1e4)
    torch.testing.assert_close(loss, limit, rtol=1e-3, atol=0)


@pytest.mark.parametrize(("weight", "soft", "hard"), [(0, 0, 1), (1, 1, 0), (0.3, 0.3, 0.7)])
def test_the_weight_stands_before_the_teacher(weight, soft, hard):
    student, teacher = torch.randn(2, 6, 5, dtype=torch.float64)
    labels = torch.randint(5, (6,))
    both = losses.distillation_loss(student, teacher, labels, temperature=2.0, weight=weight)
    terms = losses.soft_target_loss(student, teacher, temperature=2.0)
    torch.testing.assert_close(both, soft * terms + hard * F.cross_entropy(student, labels))


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_a_weight_beyond_one_is_refused(weight):
    x, labels = torch.zeros(1, 3), torch.tensor([0])
    with pytest.raises(ValueError, match=r"weight is .*, expected a number from 0 to 1"):
        losses.distillation_loss(x, x, labels, weight=weight)
    for loss in (losses.deit_soft_loss, losses.deit_hard_loss):
        with pytest.raises(ValueError, match=r"weight is .*, expected a number from 0 to 1"):
            loss(x, x, x, labels, weight=weight)


@given(logit_pairs(), temperatures)
@few
def test_soft_cross_entropy_is_kl_and_entropy(pair, temperature):
    student, teacher, _ = pair
    p, q = softmax(teacher.numpy() / temperature), softmax(student.numpy() / temperature)
    loss = losses.soft_cross_entropy(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx(-(p * np.log(q)).sum(-1).mean(), rel=1e-9)


def test_soft_cross_entropy_has_temperature_one_unless_given():
    student, teacher = torch.randn(2, 3, 5)
    explicit = losses.soft_cross_entropy(student, teacher, temperature=1.0)
    assert losses.soft_cross_entropy(student, teacher) == explicit


def test_a_forbidden_class_costs_nothing():
    teacher = torch.tensor([[1.0, 0.0, -torch.inf]])
    student = torch.tensor([[0.0, 1.0, -torch.inf]], requires_grad=True)
    for loss in (losses.soft_target_loss, losses.soft_cross_entropy):
        value = loss(student, teacher, temperature=1.0)
        torch.testing.assert_close(value, loss(student[:, :2], teacher[:, :2], temperature=1.0))
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.isfinite().all()


def test_logit_mse_is_the_mean_square():
    student, teacher = torch.randn(2, 4, 3, dtype=torch.float64)
    expected = ((student - teacher).numpy() ** 2).sum() / 12
    assert losses.logit_mse_loss(student, teacher).item() == pytest.approx(expected)


@given(logit_pairs(), temperatures)
@few
def test_the_two_parts_of_dkd_match_the_closed_form(pair, temperature):
    student, teacher, labels = pair
    q, p = softmax(student.numpy() / temperature), softmax(teacher.numpy() / temperature)
    target, others = [], []
    for row, label in enumerate(labels.tolist()):
        p_y, q_y = p[row, label], q[row, label]
        target.append(kl(np.array([p_y, 1 - p_y]), np.array([q_y, 1 - q_y])))
        p_rest, q_rest = np.delete(p[row], label), np.delete(q[row], label)
        others.append(kl(p_rest / p_rest.sum(), q_rest / q_rest.sum()))
    square = temperature**2
    tckd = losses.target_class_loss(student, teacher, labels, temperature=temperature)
    nckd = losses.nontarget_class_loss(student, teacher, labels, temperature=temperature)
    assert tckd.item() == pytest.approx(square * np.mean(target), rel=1e-7, abs=1e-9)
    assert nckd.item() == pytest.approx(square * np.mean(others), rel=1e-7, abs=1e-9)
    both = losses.dkd_loss(student, teacher, labels, temperature=temperature, alpha=0.5, beta=3.0)
    torch.testing.assert_close(both, 0.5 * tckd + 3 * nckd)


def test_soft_targets_are_the_two_parts_with_the_teachers_doubt_as_weight():
    student, teacher = 3 * torch.randn(2, 1, 6, dtype=torch.float64)
    label = torch.tensor([2])
    doubt = 1 - F.softmax(teacher / 4, -1)[0, 2]
    parts = losses.target_class_loss(student, teacher, label)
    parts = parts + doubt * losses.nontarget_class_loss(student, teacher, label)
    torch.testing.assert_close(losses.soft_target_loss(student, teacher), parts)


def test_dkd_weighs_the_parts_one_to_eight():
    student, teacher = torch.randn(2, 3, 5)
    labels = torch.tensor([0, 1, 2])
    explicit = losses.dkd_loss(student, teacher, labels, alpha=1.0, beta=8.0)
    assert losses.dkd_loss(student, teacher, labels) == explicit


def test_dkd_has_leading_dimensions_too():
    student, teacher = torch.randn(2, 2, 3, 5)
    labels = torch.randint(5, (2, 3))
    flat = losses.dkd_loss(student.flatten(0, 1), teacher.flatten(0, 1), labels.flatten())
    torch.testing.assert_close(losses.dkd_loss(student, teacher, labels), flat)


def test_the_labels_own_logit_is_nothing_to_the_other_classes():
    student, teacher = torch.randn(2, 1, 5)
    moved = student.clone()
    moved[0, 3] += 1e4
    label = torch.tensor([3])
    before = losses.nontarget_class_loss(student, teacher, label)
    torch.testing.assert_close(losses.nontarget_class_loss(moved, teacher, label), before)


def test_two_classes_have_no_dark_knowledge():
    student, teacher = torch.randn(2, 4, 2)
    assert losses.nontarget_class_loss(student, teacher, torch.tensor([0, 1, 1, 0])) == 0


def test_the_target_part_does_not_underflow():
    """log(softmax) of this student is -200; summed probabilities would give log(0)."""
    student, teacher = torch.tensor([[-800.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.0, -9.0]])
    loss = losses.target_class_loss(student.requires_grad_(), teacher, torch.tensor([0]))
    loss.backward()
    assert loss.item() == pytest.approx(16 * 95, rel=0.1)
    assert student.grad.abs().max() > 0.1


@given(logit_pairs(), temperatures)
@few
def test_dist_matches_the_closed_form_with_its_epsilon(pair, temperature):
    def correlation(left, right):
        left, right = left - left.mean(), right - right.mean()
        return left @ right / (np.linalg.norm(left) * np.linalg.norm(right) + 1e-8)

    student, teacher = (side.repeat(2, 1) for side in pair[:2])  # at least two rows
    q, p = softmax(student.numpy() / temperature), softmax(teacher.numpy() / temperature)
    rows = np.mean([correlation(a, b) for a, b in zip(q, p, strict=True)])
    columns = np.mean([correlation(a, b) for a, b in zip(q.T, p.T, strict=True)])
    loss = losses.dist_loss(student, teacher, temperature=temperature, beta=2.0, gamma=0.5)
    expected = temperature**2 * (2 * (1 - rows) + 0.5 * (1 - columns))
    assert loss.item() == pytest.approx(expected, rel=1e-7, abs=1e-9)


def test_dist_is_made_of_numpys_correlations():
    student, teacher = 3 * torch.randn(2, 5, 4, dtype=torch.float64)
    q, p = softmax(student.numpy()), softmax(teacher.numpy())
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(q, p, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(q.T, p.T, strict=True)])
    assert losses.dist_loss(student, teacher).item() == pytest.approx(2 - rows - columns, abs=1e-6)


def test_dist_of_one_sample_has_no_correlation_over_the_batch():
    student, teacher = torch.randn(2, 1, 3)
    with pytest.raises(ValueError, match="one row has no correlation over the batch: .*gamma=0"):
        losses.dist_loss(student, teacher)
    both = losses.dist_loss(student.repeat(2, 1), teacher.repeat(2, 1), gamma=0)
    torch.testing.assert_close(losses.dist_loss(student, teacher, gamma=0), both)


@given(logit_pairs())
@few
def test_standardized_logits_have_mean_zero_and_deviation_one(pair):
    logits, _, _ = pair
    z = losses.standardize_logits(logits).numpy()
    expected = (logits - logits.mean(-1, keepdim=True)).numpy() / (
        logits.numpy().std(-1, ddof=1, keepdims=True) + 1e-7
    )
    np.testing.assert_allclose(z, expected, rtol=1e-9, atol=1e-12)


def test_standardizing_forgets_scale_and_shift_and_lets_gradients_through():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    standard = losses.standardize_logits(logits)
    torch.testing.assert_close(
        standard, losses.standardize_logits(3 * logits - 2), rtol=1e-5, atol=0
    )
    assert torch.autograd.gradcheck(losses.standardize_logits, logits)


def test_rows_are_standardized_in_any_number_of_dimensions():
    logits = torch.randn(2, 3, 5, dtype=torch.float64)
    flat = losses.standardize_logits(logits.flatten(0, 1))
    torch.testing.assert_close(losses.standardize_logits(logits), flat.reshape(2, 3, 5))


def test_a_constant_row_is_standardized_to_zeros_with_a_finite_gradient():
    logits = torch.ones(1, 4, requires_grad=True)
    standard = losses.standardize_logits(logits)
    standard.sum().backward()
    assert standard.abs().max() == 0
    assert logits.grad.isfinite().all()


def test_standardizing_needs_classes():
    with pytest.raises(ValueError, match="logits have 1 class"):
        losses.standardize_logits(torch.ones(3, 1))
    assert losses.standardize_logits(torch.randn(2, 3).half()).dtype == torch.float32


def test_deit_trains_one_head_with_labels_and_the_other_with_the_teacher():
    heads = torch.randn(2, 4, 5, dtype=torch.float64)
    teacher, labels = torch.randn(4, 5, dtype=torch.float64), torch.tensor([0, 4, 2, 2])
    soft = losses.deit_soft_loss(*heads, teacher, labels, temperature=2.0, weight=0.3)
    distilled = losses.soft_target_loss(heads[1], teacher, temperature=2.0) / 5
    torch.testing.assert_close(soft, 0.7 * F.cross_entropy(heads[0], labels) + 0.3 * distilled)
    hard = losses.deit_hard_loss(*heads, teacher, labels, weight=0.3)
    decided = F.cross_entropy(heads[1], teacher.argmax(1))
    torch.testing.assert_close(hard, 0.7 * F.cross_entropy(heads[0], labels) + 0.3 * decided)


def test_deits_defaults_are_the_papers():
    heads, teacher, labels = torch.randn(2, 3, 5), torch.randn(3, 5), torch.tensor([0, 1, 2])
    soft = losses.deit_soft_loss(*heads, teacher, labels, temperature=3.0, weight=0.1)
    assert losses.deit_soft_loss(*heads, teacher, labels) == soft
    hard = losses.deit_hard_loss(*heads, teacher, labels, weight=0.5)
    assert losses.deit_hard_loss(*heads, teacher, labels) == hard


def test_deits_heads_must_agree_in_shape():
    x, labels = torch.zeros(2, 4), torch.tensor([0, 1])
    for loss in (losses.deit_soft_loss, losses.deit_hard_loss):
        with pytest.raises(ValueError, match=r"class and distillation logits have shape \(2, 3\)"):
            loss(x[:, :3], x, x, labels)
        with pytest.raises(ValueError, match=r"student logits have shape \(2, 4\)"):
            loss(x, x, x[:, :3], labels)


@given(logit_pairs(), temperatures)
@few
def test_a_binary_output_is_a_softmax_over_itself_and_zero(pair, temperature):
    student, teacher, _ = pair
    with_zero = [torch.stack([side, torch.zeros_like(side)], -1) for side in (student, teacher)]
    softmaxed = losses.soft_target_loss(*with_zero, temperature=temperature)
    binary = losses.binary_distillation_loss(student, teacher, temperature=temperature)
    torch.testing.assert_close(binary, softmaxed, rtol=1e-7, atol=1e-12)
    labels = losses.multi_label_distillation_loss(student, teacher, temperature=temperature)
    torch.testing.assert_close(labels, student.shape[-1] * softmaxed, rtol=1e-7, atol=1e-12)


def test_binary_outputs_have_temperature_one_unless_given():
    student, teacher = torch.randn(2, 3, 5)
    for loss in (losses.binary_distillation_loss, losses.multi_label_distillation_loss):
        assert loss(student, teacher) == loss(student, teacher, temperature=1.0)


def test_one_class_is_no_choice():
    with pytest.raises(ValueError, match="logits have 1 class.*use binary_distillation_loss"):
        losses.soft_target_loss(torch.zeros(4, 1), torch.zeros(4, 1))


def test_a_lone_row_needs_a_batch_dimension():
    with pytest.raises(ValueError, match=r"got \(3,\): add a batch dimension with unsqueeze"):
        losses.soft_target_loss(torch.zeros(3), torch.zeros(3))


def test_other_classes_say_what_to_do():
    with pytest.raises(ValueError, match=r"\(2, 10\) and teacher logits \(2, 100\): keep only"):
        losses.soft_target_loss(torch.zeros(2, 10), torch.zeros(2, 100))


def reference(name: str, student, teacher, labels, temperature):
    """A softened divergence times T², per definition, in the widest numbers that numpy has."""
    q, p = (softmax(z.numpy().astype(np.longdouble) / temperature) for z in (student, teacher))
    if name in ("binary_distillation_loss", "multi_label_distillation_loss"):
        z = [side.numpy().astype(np.longdouble) / temperature for side in (student, teacher)]
        q, p = (1 / (1 + np.exp(-side)) for side in z)
        each = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        each = each.mean() if name == "binary_distillation_loss" else each.sum(-1)
    elif name in ("target_class_loss", "nontarget_class_loss"):
        hot = np.arange(q.shape[-1]) == labels.numpy()[:, None]
        if name == "target_class_loss":
            q, p = (np.stack([x[hot], 1 - x[hot]], -1) for x in (q, p))
        else:
            q, p = (x[~hot].reshape(len(x), -1) for x in (q, p))
            q, p = (x / x.sum(-1, keepdims=True) for x in (q, p))
        each = kl(p, q)
    elif name == "reverse_kl":
        each = kl(q, p)
    elif name == "generalized_jsd":
        m = (p + q) / 2
        each = (kl(p, m) + kl(q, m)) / 2
    else:
        each = kl(p, q)
    return float(temperature**2 * each.mean())


SOFTENED = [
    "soft_target_loss",
    "forward_kl",
    "reverse_kl",
    "generalized_jsd",
    "target_class_loss",
    "nontarget_class_loss",
    "binary_distillation_loss",
    "multi_label_distillation_loss",
]
WITHOUT_SQUARE = ("forward_kl", "reverse_kl", "generalized_jsd")


@pytest.mark.parametrize("name", SOFTENED)
@pytest.mark.parametrize("classes", [10, 1000, 32_000])
def test_a_softened_divergence_is_no_rounding(name, classes):
    """A student near its teacher, where T² times a rounding would be the larger of the two."""
    torch.manual_seed(1)
    teacher = 3 * torch.randn(8, classes)
    student = teacher + 0.05 * torch.randn(8, classes)
    labels = torch.arange(8)
    rest = (labels,) if name.endswith("class_loss") else ()
    binary = name in ("binary_distillation_loss", "multi_label_distillation_loss")
    chunks = [{}, {"chunk": 3}] if name in WITHOUT_SQUARE else [{}]
    for temperature in (4.0, 20.0, 60.0, 1e4):
        right = reference(name, student, teacher, labels, temperature)
        lost = temperature**2 * math.log(2 if binary else classes)
        rounding = lost * torch.finfo(torch.float32 if lost < 2000 else torch.float64).eps
        count = classes if name == "multi_label_distillation_loss" else 1
        square = temperature**2 if name in WITHOUT_SQUARE else 1
        close = pytest.approx(right, rel=1e-5, abs=count * rounding)
        sides = [(student, teacher), (student.double(), teacher), (student, teacher.double())]
        for pair, options in itertools.product(sides, chunks):
            found = getattr(losses, name)(*pair, *rest, temperature=temperature, **options)
            assert found.dtype == torch.promote_types(pair[0].dtype, pair[1].dtype)
            assert square * found.item() == close, [side.dtype for side in pair]


@pytest.mark.parametrize("name", [*SOFTENED, "dist_loss", "dkd_loss", "distillation_loss"])
def test_the_gradient_at_a_high_temperature_is_that_of_double_precision(name):
    torch.manual_seed(2)
    student, teacher = 3 * torch.randn(2, 8, 50)
    rest = (
        (torch.arange(8),) if name.endswith("class_loss") or name[:5] in ("dkd_l", "disti") else ()
    )
    for temperature in (100.0, 1e4):
        slopes = []
        for dtype in (torch.float32, torch.float64):
            leaf = student.to(dtype).requires_grad_()
            value = getattr(losses, name)(leaf, teacher.to(dtype), *rest, temperature=temperature)
            slopes.append(torch.autograd.grad(value, leaf)[0].double())
        assert slopes[1].abs().max() > 0
        scale = slopes[1].abs().max().item()
        torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize(("name", "weight"), [("soft", 1), ("deit_soft", 1), ("deit_hard", 1)])
def test_a_label_that_weighs_nothing_may_be_ruled_out(name, weight):
    torch.manual_seed(3)
    student, teacher = torch.randn(2, 3, 5)
    labels = torch.tensor([4, 1, 2])
    given = student.clone()
    given[:, 4] = -torch.inf
    given.requires_grad_()
    if name == "soft":
        ruled_out = teacher.clone()
        ruled_out[:, 4] = -torch.inf
        value = losses.distillation_loss(given, ruled_out, labels, weight=weight)
        right = losses.soft_target_loss(student[:, :4], teacher[:, :4])
    else:
        loss = getattr(losses, f"{name}_loss")
        value = loss(given, student, teacher, labels, weight=weight)
        right = loss(student, student, teacher, labels, weight=weight)
    torch.testing.assert_close(value, right)
    (slope,) = torch.autograd.grad(value, given)
    assert slope.isfinite().all()
    assert (slope.abs().sum() > 0) == (name == "soft")


def test_vit_pytorchs_weight_becomes_this_ones_as_its_page_says():
    torch.manual_seed(4)
    heads, teacher = torch.randn(2, 6, 10, dtype=torch.float64), torch.randn(6, 10).double()
    labels, w, classes = torch.arange(6), 0.5, 10
    soft = losses.soft_target_loss(heads[1], teacher, temperature=3.0)
    theirs = (1 - w) * F.cross_entropy(heads[0], labels) + w * soft
    k = 1 - w + w * classes
    ours = losses.deit_soft_loss(*heads, teacher, labels, weight=w * classes / k)
    torch.testing.assert_close(k * ours, theirs)


@pytest.mark.parametrize("classes", [3, 10, 23])
@pytest.mark.parametrize("rows", ["zeros", "equal"])
def test_dist_of_rows_that_do_not_vary_has_the_gradient_of_double_precision(classes, rows):
    torch.manual_seed(0)
    teacher = 3 * torch.randn(16, classes)
    start = torch.zeros(16, classes) if rows == "zeros" else torch.randn(classes).repeat(16, 1)
    gradients = []
    for kind in (torch.float32, torch.float64):
        student = start.detach().to(kind, copy=True).requires_grad_()
        losses.dist_loss(student, teacher.to(kind)).backward()
        gradients.append(student.grad.double())
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-3 * gradients[1].abs().max().item())


@pytest.mark.parametrize("constant", [0.0, 0.3, 1000.7])
def test_a_constant_row_is_standardized_to_zeros(constant):
    rows = torch.full((2, 7), constant)
    assert torch.equal(losses.standardize_logits(rows), torch.zeros(2, 7))


@pytest.mark.parametrize("call", [losses.dist_loss, lambda s, t: losses.standardize_logits(t)])
def test_probabilities_are_no_logits_of_dist_and_standardization(call):
    with pytest.raises(ValueError, match="logits sum to 1 in each row"):
        call(torch.randn(4, 5), torch.randn(4, 5).softmax(1))
