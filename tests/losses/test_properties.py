"""What every loss promises, and what it does not: one table, one test a promise."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kdlearn import losses

SHAPES = {
    "logits": (5, 7),
    "features": (3, 4, 6, 6),
    "embeddings": (6, 5),
    "scores": (2, 3, 5, 5),
    "states": (2, 5, 8),
    "tokens": (2, 4, 9),
}
LABELS = torch.tensor([0, 6, 3, 3, 1])


@dataclass
class Spec:
    """One loss, called as ``call(student, teacher)`` on tensors of one kind.

    ``ignores`` are the changes that leave the value alone, ``sees`` those that do not: "batch"
    (both sides reordered), "order" (the student's channels, classes or widths reordered), "both
    orders" (student's and teacher's alike), "scale" and "shift" (of the student).
    """

    kind: str
    call: Callable[[Tensor, Tensor], Tensor]
    ignores: str = ""
    sees: str = ""
    zero: bool = True  # at equality
    positive: bool = True  # everywhere
    second: bool = True  # gradgradcheck
    accuracy: float = 1e-12  # of the zero
    alone: bool = True  # takes a batch of one


def labeled(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, t: getattr(losses, name)(s, t, LABELS[: len(s)])


def fsp(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.fsp_loss((student, student[:, 1:3]), (teacher, teacher[:, 1:3]))


def top_k(tail: str) -> Callable[[Tensor, Tensor], Tensor]:
    def call(student, teacher):
        stored = teacher.float() if teacher.element_size() == 2 else teacher
        log_probs, indices = stored.log_softmax(-1).topk(3)
        return losses.top_k_kl(student, log_probs, indices, tail=tail)

    return call


def sampled(student: Tensor, teacher: Tensor) -> Tensor:
    indices = torch.arange(3).expand(*teacher.shape[:-1], 3)
    stored = teacher.float() if teacher.element_size() == 2 else teacher
    return losses.sampled_kl(student, stored.log_softmax(-1).gather(-1, indices), indices)


def sequence(student: Tensor, teacher: Tensor) -> Tensor:
    tokens = torch.arange(student.shape[0] * student.shape[1]).reshape(student.shape[:2]) % 9
    return losses.sequence_reverse_kl(student, teacher, tokens)


def plain(name: str, **options) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda s, t: getattr(losses, name)(s, t, **options)


def fused(student: Tensor, teacher: Tensor) -> Tensor:
    head = torch.eye(student.shape[-1], dtype=student.dtype)
    return losses.linear_distillation_loss(student, head, teacher, chunk=3)


KL = {"ignores": "batch, both orders, shift", "sees": "order, scale"}
RELATION = {"ignores": "batch, order, scale", "sees": "shift", "alone": False}

TABLE = {
    "soft_target_loss": Spec("logits", plain("soft_target_loss"), **KL),
    "distillation_loss": Spec(
        "logits", labeled("distillation_loss"), ignores="shift", sees="order, scale", zero=False
    ),
    "soft_cross_entropy": Spec("logits", plain("soft_cross_entropy"), zero=False, **KL),
    "logit_mse_loss": Spec(
        "logits",
        plain("logit_mse_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "target_class_loss": Spec(
        "logits", labeled("target_class_loss"), ignores="shift", sees="order, scale"
    ),
    "nontarget_class_loss": Spec(
        "logits", labeled("nontarget_class_loss"), ignores="shift", sees="order, scale"
    ),
    "dkd_loss": Spec("logits", labeled("dkd_loss"), ignores="shift", sees="order, scale"),
    "dist_loss": Spec("logits", plain("dist_loss"), accuracy=1e-6, alone=False, **KL),
    "binary_distillation_loss": Spec(
        "logits",
        plain("binary_distillation_loss", temperature=2.0),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "multi_label_distillation_loss": Spec(
        "logits",
        plain("multi_label_distillation_loss", temperature=2.0),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "deit_soft_loss": Spec(
        "logits",
        lambda s, t: losses.deit_soft_loss(s, s, t, LABELS[: len(s)]),
        ignores="shift",
        sees="order, scale",
        zero=False,
    ),
    "deit_hard_loss": Spec(
        "logits",
        lambda s, t: losses.deit_hard_loss(s, s, t, LABELS[: len(s)]),
        ignores="shift",
        sees="order, scale",
        zero=False,
    ),
    "attention_transfer_loss": Spec(
        "features",
        plain("attention_transfer_loss"),
        ignores="batch, order, scale",
        sees="shift",
    ),
    "attention_transfer_loss/paper": Spec(
        "features",
        plain("attention_transfer_loss", convention="paper", p=4),
        ignores="batch, order, scale",
        sees="shift",
    ),
    "gradient_attention_loss": Spec(
        "features",
        plain("gradient_attention_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "hint_loss": Spec(
        "features",
        plain("hint_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "nst_loss": Spec("features", plain("nst_loss"), ignores="batch, order, scale", sees="shift"),
    "hcl_loss": Spec(
        "features",
        plain("hcl_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "fsp_loss": Spec("features", fsp, ignores="batch", sees="order, scale, shift"),
    "activation_boundary_loss": Spec(
        "features",
        plain("activation_boundary_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
        zero=False,
        second=False,
    ),
    "factor_transfer_loss": Spec(
        "features",
        plain("factor_transfer_loss"),
        ignores="batch, both orders, scale",
        sees="order, shift",
    ),
    "similarity_preserving_loss": Spec("features", plain("similarity_preserving_loss"), **RELATION),
    "rkd_distance_loss": Spec(
        "embeddings", plain("rkd_distance_loss"), ignores="batch, order, scale, shift", alone=False
    ),
    "rkd_angle_loss": Spec(
        "embeddings", plain("rkd_angle_loss"), ignores="batch, order, scale, shift", alone=False
    ),
    "pkt_loss": Spec("embeddings", plain("pkt_loss"), positive=False, **RELATION),
    "correlation_congruence_loss": Spec(
        "embeddings",
        plain("correlation_congruence_loss"),
        alone=False,
        ignores="both orders",
        sees="batch, order, scale, shift",
    ),
    "contrastive_loss": Spec(
        "embeddings",
        plain("contrastive_loss"),
        alone=False,
        ignores="batch, both orders, scale",
        sees="order, shift",
        zero=False,
    ),
    "attention_score_loss": Spec(
        "scores",
        plain("attention_score_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "attention_distribution_loss": Spec("scores", plain("attention_distribution_loss"), **KL),
    "vit_attention_loss": Spec("scores", plain("vit_attention_loss"), zero=False, **KL),
    "relation_loss": Spec(
        "states",
        plain("relation_loss", relation_heads=2),
        ignores="batch",
        sees="order, scale, shift",
    ),
    "relation_loss/pair": Spec(
        "states",
        lambda s, t: losses.relation_loss((s, s.flip(0)), (t, t.flip(0)), relation_heads=4),
        ignores="batch",
        sees="order, scale, shift",
    ),
    "hidden_state_loss": Spec(
        "states",
        plain("hidden_state_loss"),
        ignores="batch, both orders",
        sees="order, scale, shift",
    ),
    "forward_kl": Spec("tokens", plain("forward_kl"), **KL),
    "reverse_kl": Spec("tokens", plain("reverse_kl"), **KL),
    "total_variation": Spec("tokens", plain("total_variation"), **KL),
    "skew_kl": Spec("tokens", plain("skew_kl"), **KL),
    "generalized_jsd": Spec("tokens", plain("generalized_jsd"), **KL),
    "generalized_jsd/forward": Spec("tokens", plain("generalized_jsd", beta=0), **KL),
    "generalized_jsd/reverse": Spec("tokens", plain("generalized_jsd", beta=1), **KL),
    "top_k_kl/bucket": Spec("tokens", top_k("bucket"), **KL),
    "top_k_kl/renormalize": Spec("tokens", top_k("renormalize"), **KL),
    "top_k_kl/ignore": Spec("tokens", top_k("ignore"), positive=False, **KL),
    "sampled_kl": Spec(
        "tokens", sampled, ignores="batch, shift", sees="order, scale", positive=False
    ),
    "linear_distillation_loss": Spec("tokens", fused, second=False, **KL),
    "uld_loss": Spec("tokens", plain("uld_loss"), ignores="batch, order, shift", sees="scale"),
    "sequence_reverse_kl": Spec(
        "tokens", sequence, ignores="shift", sees="order, scale", positive=False
    ),
}
# REINFORCE's gradient is not the derivative of its value: tests/losses/test_language.py has it.
DIFFERENTIABLE = [name for name in TABLE if name != "sequence_reverse_kl"]


@pytest.fixture
def pair(request):
    """Student and teacher of the named loss, float64."""
    torch.manual_seed(0)
    shape = SHAPES[TABLE[request.param].kind]
    return request.param, *torch.randn(2, *shape, dtype=torch.float64).unbind()


each = pytest.mark.parametrize("pair", TABLE, indirect=True)


def reordered(tensor: Tensor, kind: str) -> Tensor:
    dim = 1 if kind in ("features", "scores") else -1
    return tensor.roll(1, dim)


def test_the_table_has_every_function():
    functions = {name for name in losses.__all__ if callable(getattr(losses, name))}
    elsewhere = {
        *("VIDLoss", "MGDLoss", "layer_map", "standardize_logits", "flip_symmetry_loss"),
        "cross_entropy",
    }
    assert {name.split("/")[0] for name in TABLE} | elsewhere == functions


@each
def test_is_zero_at_equality_and_only_where_it_says_so(pair):
    name, student, _ = pair
    value = TABLE[name].call(student, student.clone())
    assert (abs(value.item()) < TABLE[name].accuracy) == TABLE[name].zero


@each
def test_is_a_positive_scalar_away_from_equality(pair):
    name, student, teacher = pair
    value = TABLE[name].call(student, teacher)
    assert value.shape == ()
    assert value.dtype == torch.float64
    if TABLE[name].positive:
        assert value > 1e-4


@each
def test_the_gradient_at_equality_is_finite(pair):
    name, student, _ = pair
    TABLE[name].call(student.requires_grad_(), student.detach().clone()).backward()
    assert student.grad.isfinite().all()


@each
def test_sends_no_gradient_to_the_teacher(pair):
    name, student, teacher = pair
    student.requires_grad_()
    teacher.requires_grad_()
    TABLE[name].call(student, teacher).backward()
    assert teacher.grad is None
    assert student.grad.abs().sum() > 0


@pytest.mark.parametrize("pair", DIFFERENTIABLE, indirect=True)
def test_the_gradient_is_that_of_finite_differences(pair):
    name, student, teacher = pair
    student, teacher = student[:3], teacher[:3]
    if student.dim() == 4:
        student, teacher = student[:2, :2, :3, :3], teacher[:2, :2, :3, :3]
    assert gradcheck(lambda s: TABLE[name].call(s, teacher), student.requires_grad_())


@pytest.mark.parametrize(
    "pair", [name for name in DIFFERENTIABLE if TABLE[name].second], indirect=True
)
def test_the_second_derivative_is_that_of_finite_differences(pair):
    name, student, teacher = pair
    student, teacher = student[:2], teacher[:2]
    if student.dim() == 4:
        student, teacher = student[:, :2, :2, :2], teacher[:, :2, :2, :2]
    assert gradgradcheck(lambda s: TABLE[name].call(s, teacher), student.requires_grad_())


ROW_LOSSES = [
    name
    for name, spec in TABLE.items()
    if spec.kind in ("logits", "tokens") and name != "sequence_reverse_kl"
]


@pytest.mark.parametrize("name", ROW_LOSSES)
def test_all_leading_dimensions_are_rows(name, monkeypatch):
    torch.manual_seed(3)
    student, teacher = torch.randn(2, 6, 7, dtype=torch.float64)
    labels = torch.tensor([0, 6, 3, 3, 1, 2])
    monkeypatch.setitem(globals(), "LABELS", labels)
    flat = TABLE[name].call(student, teacher)
    monkeypatch.setitem(globals(), "LABELS", labels.reshape(2, 3))
    shaped = TABLE[name].call(student.reshape(2, 3, 7), teacher.reshape(2, 3, 7))
    torch.testing.assert_close(shaped, flat)


def changed(change: str, kind: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    if change == "batch":
        order = torch.tensor([*range(2, len(student)), 0, 1])
        return student[order], teacher[order]
    if change == "order":
        return reordered(student, kind), teacher
    if change == "both orders":
        return reordered(student, kind), reordered(teacher, kind)
    return (student * 3, teacher) if change == "scale" else (student + 1.7, teacher)


def changes(which: str) -> list:
    return [
        pytest.param((name, change), id=f"{name}-{change}")
        for name, spec in TABLE.items()
        for change in getattr(spec, which).split(", ")
        if change
    ]


def value_before_and_after(name_and_change):
    name, change = name_and_change
    torch.manual_seed(1)
    kind = TABLE[name].kind
    # More samples than elsewhere: two of them cannot be put in another order of neighbors.
    shape = (4, *SHAPES[kind][1:]) if kind != "logits" else SHAPES[kind]
    student, teacher = torch.randn(2, *shape, dtype=torch.float64).unbind()
    call = TABLE[name].call
    before = call(student, teacher).item()
    return before, call(*changed(change, kind, student, teacher)).item()


@pytest.mark.parametrize("change", changes("ignores"))
def test_ignores(change):
    before, after = value_before_and_after(change)
    assert after == pytest.approx(before, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("change", changes("sees"))
def test_sees(change):
    before, after = value_before_and_after(change)
    assert after != pytest.approx(before, rel=1e-3)


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "plain"])
def test_half_precision_is_as_good_as_its_numbers(pair, dtype, autocast):
    name, student, teacher = pair
    student, teacher = student.to(dtype).requires_grad_(), teacher.to(dtype)
    with torch.autocast("cpu", dtype=dtype, enabled=autocast):
        value = TABLE[name].call(student, teacher)
    value.backward()
    exact = TABLE[name].call(student.detach().double(), teacher.double())
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(exact.item(), rel=1e-4, abs=1e-6)
    assert student.grad.isfinite().all()


@each
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_stays_finite_at_ten_thousand(pair, dtype):
    name, student, teacher = pair
    student = (student.sign() * 1e4).to(dtype).requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = TABLE[name].call(student, (teacher.sign() * 1e4).to(dtype))
    value.backward()
    assert value.isfinite()
    # The gradient of the flow matrix grows with the cube of the features, past what float16 holds.
    assert student.grad.isfinite().all() or (name == "fsp_loss" and dtype == torch.float16)


# A relation is between samples: tests/losses/test_relations.py and test_logits.py have the refusal.
ALONE = [name for name, spec in TABLE.items() if spec.alone]


@pytest.mark.parametrize("pair", ALONE, indirect=True)
def test_takes_a_batch_of_one(pair):
    name, student, teacher = pair
    student = student[:1].requires_grad_()
    value = TABLE[name].call(student, teacher[:1])
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


@each
def test_refuses_an_empty_batch(pair):
    name, student, teacher = pair
    with pytest.raises(ValueError, match=r"are empty, shape .*skip empty batches"):
        TABLE[name].call(student[:0], teacher[:0])


@each
def test_refuses_two_batches_of_different_size(pair):
    name, student, teacher = pair
    with pytest.raises(ValueError, match=r"\d, .* and .*\d"):
        TABLE[name].call(student, teacher[:-1])


@each
def test_refuses_integers(pair):
    name, student, teacher = pair
    with pytest.raises(TypeError, match=r"must be floating point, got torch.int64"):
        TABLE[name].call(student.long(), teacher)


@each
@pytest.mark.parametrize("side", ["student", "teacher"])
def test_refuses_nan(pair, side):
    name, student, teacher = pair
    (student if side == "student" else teacher).view(-1)[-1] = torch.nan
    with pytest.raises(ValueError, match=r"contain NaN"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        TABLE[name].call(student, teacher)


TEMPERED = [
    "soft_target_loss",
    "soft_cross_entropy",
    "dist_loss",
    "binary_distillation_loss",
    "multi_label_distillation_loss",
    "contrastive_loss",
    "forward_kl",
    "reverse_kl",
    "generalized_jsd",
]


@pytest.mark.parametrize("name", TEMPERED)
@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_refuses_a_temperature_that_is_not_positive(name, temperature):
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"temperature is .* expected a positive finite number"):
        getattr(losses, name)(x, x, temperature=temperature)


@pytest.mark.parametrize(
    "name",
    ["distillation_loss", "dkd_loss", "target_class_loss", "nontarget_class_loss"],
)
def test_refuses_a_temperature_of_zero_beside_labels(name):
    x = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"temperature is 0"):
        getattr(losses, name)(x, x, torch.tensor([0, 1]), temperature=0)


LABEL_LOSSES = [
    "distillation_loss",
    "dkd_loss",
    "target_class_loss",
    "nontarget_class_loss",
    "deit_soft_loss",
    "deit_hard_loss",
]


@pytest.mark.parametrize("name", LABEL_LOSSES)
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (
            torch.tensor([0, 3]),
            ValueError,
            r"labels go from 0 to 3, but 3 classes are numbered 0 to 2",
        ),
        (torch.tensor([-100, 1]), ValueError, r"labels go from -100 to 1"),
        (
            torch.tensor([0.0, 1.0]),
            TypeError,
            r"labels must be a tensor of torch.int64, got torch.float32",
        ),
        (torch.tensor([0, 1, 2]), ValueError, r"labels have shape \(3,\) and logits \(2, 3\)"),
        ([0, 1], TypeError, r"labels must be a tensor of torch.int64, got list"),
    ],
)
def test_refuses_labels_that_are_no_class_numbers(name, labels, error, message):
    logits = [torch.zeros(2, 3)] * (3 if name.startswith("deit") else 2)
    with pytest.raises(error, match=message):
        getattr(losses, name)(*logits, labels)


MASKED = {
    "attention_score_loss": ("scores", {}),
    "attention_distribution_loss": ("scores", {}),
    "relation_loss": ("states", {"relation_heads": 2}),
    "hidden_state_loss": ("states", {}),
    "forward_kl": ("tokens", {}),
    "reverse_kl": ("tokens", {}),
    "total_variation": ("tokens", {}),
    "skew_kl": ("tokens", {}),
    "generalized_jsd": ("tokens", {}),
    "uld_loss": ("tokens", {}),
    "top_k_kl": ("tokens", {}),
    "sampled_kl": ("tokens", {}),
    "sequence_reverse_kl": ("tokens", {}),
}


@pytest.fixture
def masked(request):
    """(call(student, teacher, mask), student, teacher, length) of one masked loss."""
    kind, options = MASKED[request.param]
    torch.manual_seed(2)
    student, teacher = torch.randn(2, *SHAPES[kind], dtype=torch.float64).unbind()
    loss = getattr(losses, request.param)

    def call(student, teacher, mask):
        extra = dict(options)
        if request.param in ("top_k_kl", "sampled_kl"):
            log_probs, indices = teacher.log_softmax(-1).topk(3)
            return loss(student, log_probs, indices, mask=mask)
        if request.param == "sequence_reverse_kl":
            tokens = torch.arange(8).reshape(2, 4)[:, : student.shape[1]]
            return loss(student, teacher, tokens, mask=mask)
        return loss(student, teacher, mask=mask, **extra)

    return call, student, teacher, student.shape[-2]


each_masked = pytest.mark.parametrize("masked", MASKED, indirect=True)


def cropped(tensor: Tensor, length: int) -> Tensor:
    return tensor[..., :length, :length] if tensor.dim() == 4 else tensor[:, :length]


@each_masked
def test_a_mask_that_keeps_all_changes_nothing(masked):
    call, student, teacher, length = masked
    everything = torch.ones(2, length, dtype=torch.bool)
    torch.testing.assert_close(
        call(student, teacher, everything), call(student, teacher, None), rtol=1e-12, atol=0
    )


@each_masked
def test_a_mask_is_as_good_as_cropping(masked):
    call, student, teacher, length = masked
    mask = torch.arange(length).expand(2, length) < length - 2
    student.requires_grad_()
    value = call(student, teacher, mask)
    expected = call(cropped(student, length - 2), cropped(teacher, length - 2), None)
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    value.backward()
    hidden = student.grad[..., length - 2 :, :]
    assert hidden.abs().sum() == 0
    assert student.grad.abs().sum() > 0


@each_masked
def test_refuses_a_mask_that_keeps_nothing(masked):
    call, student, teacher, length = masked
    with pytest.raises(ValueError, match=r"keeps no token.*True where a token counts"):
        call(student, teacher, torch.zeros(2, length, dtype=torch.bool))


@each_masked
def test_refuses_a_mask_of_numbers(masked):
    call, student, teacher, length = masked
    with pytest.raises(TypeError, match=r"mask must be a tensor of torch.bool, got torch.int64"):
        call(student, teacher, torch.ones(2, length, dtype=torch.int64))


@each_masked
def test_refuses_a_mask_of_another_length(masked):
    call, student, teacher, length = masked
    with pytest.raises(ValueError, match=rf"mask has shape \(2, {length + 1}\), expected \(2, "):
        call(student, teacher, torch.ones(2, length + 1, dtype=torch.bool))
