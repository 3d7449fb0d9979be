"""Means over rows, whole and in chunks: the same numbers, no tensor of all logits."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlearn import losses
from kdlearn.losses.rows import check_softening, log_softmax, mean_of_rows
from kdlearn.measure.cost import _Memory

CHUNKED = {
    "forward_kl": partial(losses.forward_kl, temperature=2.0),
    "reverse_kl": partial(losses.reverse_kl, temperature=2.0),
    "generalized_jsd": partial(losses.generalized_jsd, beta=0.3, temperature=2.0),
    "skew_kl": losses.skew_kl,
    "total_variation": losses.total_variation,
    "cross_entropy": lambda s, t, **options: losses.cross_entropy(s, t.argmax(-1), **options),
}
MASK = torch.tensor([[True, True, False, True], [False, False, True, True]])


def logits(dtype=torch.float32, *shape):
    torch.manual_seed(0)
    student, teacher = 3 * torch.randn(2, *(shape or (2, 4, 9)))
    student[..., 2] = teacher[..., 2] = -torch.inf
    return student.to(dtype).requires_grad_(), teacher.to(dtype)


def value_and_gradients(value, *leaves):
    return value.detach(), *torch.autograd.grad(value, leaves)


@pytest.mark.parametrize("name", CHUNKED)
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_chunks_of_every_size_have_the_numbers_of_the_whole(name, mask, dtype):
    student, teacher = logits(dtype)
    loss = partial(CHUNKED[name], student, teacher, mask=mask)
    whole = value_and_gradients(3 * loss(), student)
    loose = max(1e-6, torch.finfo(dtype).eps if dtype != torch.float32 else 0)
    for chunk in (1, 3, 5, 100):
        pieces = value_and_gradients(3 * loss(chunk=chunk), student)
        torch.testing.assert_close(pieces[0], whole[0], rtol=1e-6, atol=0)
        torch.testing.assert_close(pieces[1], whole[1], rtol=2 * loose, atol=loose)


def test_soft_cross_entropy_comes_in_chunks_too():
    student, teacher = logits()
    whole = value_and_gradients(losses.soft_cross_entropy(student, teacher), student)
    pieces = value_and_gradients(losses.soft_cross_entropy(student, teacher, chunk=3), student)
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-7)


def test_next_tokens_have_the_cross_entropy_of_torch_and_forget_what_the_mask_drops():
    student, _ = logits()
    labels = torch.randint(3, 9, (2, 4)).masked_fill(~MASK, -100)
    right = value_and_gradients(F.cross_entropy(student.flatten(0, 1), labels.flatten()), student)
    for chunk in (None, 3):
        ours = losses.cross_entropy(student, labels, mask=MASK, chunk=chunk)
        torch.testing.assert_close(value_and_gradients(ours, student), right)
    with pytest.raises(ValueError, match="labels go from -100"):
        losses.cross_entropy(student, labels)
    with pytest.raises(ValueError, match=r"labels have shape \(2, 3\)"):
        losses.cross_entropy(student, labels[:, :3], mask=MASK)
    with pytest.raises(TypeError, match="labels must be a tensor of torch.int64, got list"):
        losses.cross_entropy(student, labels.tolist(), mask=MASK)
    for chunk in (None, 3):
        with pytest.raises(ValueError, match="^student logits contain NaN"):
            losses.cross_entropy(student * torch.nan, labels.clamp_min(0), chunk=chunk)
    with pytest.raises(ValueError, match="cross_entropy is inf: what one side rules out"):
        losses.cross_entropy(student, torch.full((2, 4), 2))


def test_a_chunk_has_at_least_one_row():
    student, teacher = logits()
    for chunk, error in ((0, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="chunk is .*: expected a whole number >= 1"):
            losses.forward_kl(student, teacher, chunk=chunk)


def test_the_gradient_can_be_asked_for_again_and_not_for_its_own():
    student, teacher = logits()
    loss = losses.forward_kl(student, teacher, chunk=3)
    first = torch.autograd.grad(loss, student, retain_graph=True)[0].clone()
    loss.backward(torch.tensor(2.0), retain_graph=True)
    torch.testing.assert_close(student.grad, 2 * first)
    with pytest.raises(RuntimeError, match="leave create_graph=True or chunk= out"):
        torch.autograd.grad(loss, student, create_graph=True)


def test_nothing_is_differentiated_where_nobody_asks():
    student, teacher = logits()
    value = losses.forward_kl(student.detach(), teacher, chunk=3)
    assert not value.requires_grad
    torch.testing.assert_close(value, losses.forward_kl(student, teacher).detach())


def heads(bias=True):
    torch.manual_seed(1)
    ours, theirs = nn.Linear(6, 50, bias=bias), nn.Linear(10, 50, bias=bias)
    hidden = torch.randn(2, 4, 6, requires_grad=True)
    return hidden, ours, torch.randn(2, 4, 10), theirs


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
@pytest.mark.parametrize("stored", [True, False], ids=["logits", "hidden"])
def test_fused_heads_have_the_numbers_of_logits(bias, mask, stored):
    hidden, ours, teacher, theirs = heads(bias)
    leaves = (hidden, *ours.parameters())
    soft = partial(losses.generalized_jsd, temperature=2.0)
    plain = soft(ours(hidden), theirs(teacher), mask=mask)
    right = value_and_gradients(0.5 * plain, *leaves)
    rest = (theirs(teacher),) if stored else (teacher, theirs)
    for chunk in (1, 3, 32):
        fused = losses.linear_distillation_loss(
            hidden, ours, *rest, loss=soft, mask=mask, chunk=chunk
        )
        found = value_and_gradients(0.5 * fused, *leaves)
        torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-7)
    assert theirs.weight.grad is None


def test_the_loss_of_a_chunk_may_be_compiled():
    hidden, ours, teacher, theirs = heads(bias=True)
    leaves = (hidden, ours.weight, ours.bias)
    torch.compiler.reset()
    found, right = (
        value_and_gradients(
            losses.linear_distillation_loss(hidden, ours, teacher, theirs, loss=loss, chunk=3),
            *leaves,
        )
        for loss in (torch.compile(losses.forward_kl, backend="aot_eager"), losses.forward_kl)
    )
    torch.testing.assert_close(found, right)


def test_a_head_may_be_a_weight_or_frozen_and_half_precision():
    hidden, ours, teacher, theirs = heads(bias=False)
    layer = losses.linear_distillation_loss(hidden, ours, teacher, theirs)
    weight = losses.linear_distillation_loss(hidden, ours.weight, teacher, theirs.weight)
    assert layer == weight
    ours.requires_grad_(False)
    right = torch.autograd.grad(losses.forward_kl(ours(hidden), theirs(teacher)), hidden)
    frozen = losses.linear_distillation_loss(hidden, ours, teacher, theirs, chunk=3)
    torch.testing.assert_close(torch.autograd.grad(frozen, hidden), right)
    small, head = hidden.detach().bfloat16().requires_grad_(), ours.bfloat16().requires_grad_()
    stored = theirs(teacher).bfloat16()
    plain = losses.forward_kl(head(small), stored)
    fused = losses.linear_distillation_loss(small, head, stored, chunk=3)
    assert fused.dtype == torch.float32
    for ours_, right_ in zip(
        value_and_gradients(fused, small, head.weight),
        value_and_gradients(plain, small, head.weight),
        strict=True,
    ):
        torch.testing.assert_close(ours_, right_, rtol=2e-2, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda h, w, t, v: (h[..., :5], w, t, v),
            r"hidden states have shape \(2, 4, 5\) and their",
        ),
        (
            lambda h, w, t, v: (h, w, t[..., :5], v),
            r"\(2, 4, 5\) and their head's weight \(50, 10\)",
        ),
        (lambda h, w, t, v: (h, w, t[:, :3], v), r"give \(..., width\) of the same tokens"),
        (lambda h, w, t, v: (h, w, t, v[:40]), r"\(8, 50\) and teacher logits \(8, 40\)"),
        (lambda h, w, t, v: (h, w, t, None), r"\(8, 50\) and teacher logits \(8, 10\)"),
        (lambda h, w, t, v: (h * torch.nan, w, t, v), "student hidden states contain NaN"),
        (lambda h, w, t, v: (h, w, t * torch.inf, v), "teacher hidden states contain -?inf"),
    ],
)
def test_heads_that_do_not_fit_are_refused(change, message):
    hidden, ours, teacher, theirs = heads(bias=False)
    given = change(hidden, ours.weight, teacher, theirs.weight)
    with pytest.raises(ValueError, match=message):
        losses.linear_distillation_loss(*given)


@pytest.mark.parametrize("near", [1.0, 1e-3])
def test_what_a_gradient_scaler_saves_is_saved_in_chunks_too(near):
    """Slopes of a 30,000th, or of that between a student and a teacher nearly alike."""
    torch.manual_seed(2)
    hidden, weight = torch.randn(16, 8).half(), (0.5 * torch.randn(32_000, 8)).half()
    leaves = hidden.requires_grad_(), weight.requires_grad_()
    given = F.linear(*leaves).detach().requires_grad_()
    teacher = given.detach() + near * torch.randn_like(given)

    def scaled(loss, *leaves):
        return torch.autograd.grad(65_536 * loss, leaves)

    whole = scaled(losses.forward_kl(given, teacher), given)
    found = scaled(losses.forward_kl(given, teacher, chunk=4), given)
    torch.testing.assert_close(found, whole, rtol=1e-3, atol=6e-8)
    whole = scaled(losses.forward_kl(F.linear(*leaves), teacher), *leaves)
    found = scaled(losses.linear_distillation_loss(*leaves, teacher, chunk=4), *leaves)
    for ours, right in zip(found, whole, strict=True):
        assert (ours.double() - right).norm() < 2e-3 * right.double().norm()


@pytest.mark.parametrize("half", [True, False], ids=["half states", "single states"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_a_second_backward_pass_has_the_precision_of_the_first(half, dtype):
    hidden, ours, teacher, theirs = heads()
    with torch.autocast("cpu", dtype=dtype):
        states = F.linear(hidden, torch.eye(6)) if half else hidden
        loss = losses.linear_distillation_loss(states, ours, teacher, theirs, chunk=3)
    leaves = (hidden, *ours.parameters())
    first = [x.clone() for x in torch.autograd.grad(loss, leaves, retain_graph=True)]
    torch.testing.assert_close(
        list(torch.autograd.grad(loss, leaves, retain_graph=True)), first, rtol=0, atol=0
    )
    with torch.autocast("cpu", dtype=dtype):
        torch.testing.assert_close(list(torch.autograd.grad(loss, leaves)), first, rtol=0, atol=0)


def test_no_gradient_is_computed_where_none_is_recorded():
    student, teacher = (rows.detach()[0] for rows in logits())
    student.requires_grad_()
    calls = []

    def total(ours, theirs):
        calls.append(ours.requires_grad)
        return (ours * theirs).nan_to_num().sum()

    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            mean_of_rows(total, student, teacher, mask=None, chunk=3)
    assert calls == [False] * 4


@pytest.mark.parametrize("mask", [None, MASK], ids=["all", "masked"])
def test_chunks_are_probabilities_where_the_whole_is_and_only_there(mask):
    rows = torch.randn(2, 4, 5).softmax(-1)
    mixed = rows.clone()
    mixed[1, 2] = torch.tensor([1.0, 2.0, 3.0, 0.5, 0.0])
    one_hot = F.one_hot(torch.arange(8) % 5, 5).reshape(2, 4, 5).float()
    fine = torch.randn(2, 4, 5)
    losses_of = (
        lambda x, **options: losses.forward_kl(x, fine, **options),
        lambda x, **options: losses.reverse_kl(fine, x, **options),
        lambda x, **options: losses.cross_entropy(x, torch.zeros(2, 4).long(), **options),
    )
    for loss in losses_of:
        for chunk in (None, 1, 3, 100):
            for welcome in (mixed, one_hot, 0 * rows):
                right = loss(welcome, mask=mask)
                torch.testing.assert_close(loss(welcome, mask=mask, chunk=chunk), right)
            for wrong in (rows, torch.cat([one_hot[:, :2], rows[:, 2:]], 1)):
                with pytest.raises(ValueError, match="logits sum to 1 in each row"):
                    loss(wrong, mask=mask, chunk=chunk)


def test_the_default_of_all_tensors_is_none_of_chunks():
    student, teacher = logits()
    torch.set_default_dtype(torch.float64)
    try:
        assert losses.forward_kl(student, teacher, chunk=3).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(("classes", "highest"), [(2, 1.2e6), (10, 6.8e5), (128_000, 3.0e5)])
def test_softening_ends_where_double_precision_rounds_too(classes, highest):
    assert check_softening(highest, classes) == highest
    for beyond in (1.05 * highest, 1e300):
        with pytest.raises(ValueError, match=f"where {classes} probabilities are too equal"):
            check_softening(beyond, classes)
    with pytest.raises(ValueError, match="temperature is 0, expected"):
        check_softening(0, classes)


@pytest.mark.parametrize(("classes", "highest"), [(10, 29), (100, 20), (32_000, 13)])
def test_ordinary_temperatures_stay_in_single_precision(classes, highest):
    z = torch.zeros(1, classes)
    assert log_softmax(z, highest).dtype == torch.float32
    assert log_softmax(z, 1.1 * highest).dtype == torch.float64


def peak(loss, *leaves) -> float:
    """Bytes of tensors that were alive at one time, forward and backward."""
    with _Memory() as memory:
        torch.autograd.grad(loss(), leaves)
    return memory.peak


def test_chunks_hold_the_gradient_and_little_more():
    student = torch.randn(256, 500, requires_grad=True)
    teacher = torch.randn(256, 500)
    for name in ("forward_kl", "reverse_kl", "generalized_jsd", "skew_kl", "total_variation"):
        loss = partial(getattr(losses, name), student, teacher, chunk=16)
        assert peak(loss, student) < 2.5 * student.nbytes, name


def test_fused_heads_never_hold_the_logits():
    hidden, teacher = torch.randn(1024, 8, requires_grad=True), torch.randn(1024, 8)
    ours, theirs = nn.Linear(8, 800), nn.Linear(8, 800)
    loss = partial(losses.linear_distillation_loss, hidden, ours, teacher, theirs, chunk=16)
    assert peak(loss, hidden, *ours.parameters()) < 0.25 * (1024 * 800 * 4)


def test_a_large_vocabulary_comes_in_small_chunks_unasked():
    hidden, teacher = torch.randn(512, 2, requires_grad=True), torch.randn(512, 2)
    ours, theirs = nn.Linear(2, 2**16), nn.Linear(2, 2**16)
    loss = partial(losses.linear_distillation_loss, hidden, ours, teacher, theirs)
    assert peak(loss, hidden) < 0.5 * (512 * 2**16 * 4)


def test_the_sum_of_a_chunk_is_what_is_averaged():
    rows = torch.arange(12.0).reshape(2, 3, 2)
    product = lambda ours, theirs: (ours * theirs).sum()  # noqa: E731
    mean = mean_of_rows(product, rows, rows, mask=None, chunk=2)
    assert mean == (rows * rows).sum() / 6
