"""Finite or refused: what a loss lets in has a right value and gradient, at every width."""

import pytest
import torch
from torch import Tensor

from kdlearn import losses
from tests.losses.table import MASKED, SHAPES, TABLE, cropped, masked_call, plain

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
FAR = -1e6  # where -inf has a limit, this far down float64 is at it: no probability is left


def one(x: Tensor) -> None:
    x[..., 0, 1] = -torch.inf


def column(x: Tensor) -> None:
    x[..., 2] = -torch.inf


def half(x: Tensor) -> None:
    x[..., ::2] = -torch.inf


def all_but_one(x: Tensor) -> None:
    x[..., :3] = x[..., 4:] = -torch.inf


def row(x: Tensor) -> None:
    x[..., 0, :] = -torch.inf


def everything(x: Tensor) -> None:
    x[:] = -torch.inf


ROWS_LEFT = [one, column, half, all_but_one]
PATTERNS = [*ROWS_LEFT, row, everything]
TEACHER_LOGITS = ("linear_distillation_loss", "teacher")
SIDES = ["student", "teacher", "both"]
TAKES_MINUS_INFINITY = [
    name
    for name, spec in TABLE.items()
    if spec.kind in ("logits", "tokens", "scores")
    if name not in ("logit_mse_loss", "dist_loss", "deit_soft_loss", "linear_distillation_loss")
    if not name.startswith(("binary", "multi_label"))
]
# Refused with no limit of the loss to blame: a token drawn with probability 0, nothing but the
# label.
DRAWN = ("sequence_reverse_kl", "sampled_kl", *(f"sampled_reverse_kl/k{n}" for n in (1, 2, 3)))
IMPOSSIBLE = {
    *((name, pattern) for name in DRAWN for pattern in PATTERNS),
    *((name, all_but_one) for name in ("nontarget_class_loss", "dkd_loss")),
}


def changed(name: str, side: str, dtype: torch.dtype, change) -> tuple[Tensor, Tensor]:
    torch.manual_seed(4)
    pair = [2 * torch.randn(SHAPES[TABLE[name].kind]).to(dtype) for _ in range(2)]
    for tensor, which in zip(pair, ("student", "teacher"), strict=True):
        if side in (which, "both"):
            change(tensor)
    return pair[0].requires_grad_(), pair[1]


def value_and_gradient(call, student: Tensor, *rest: Tensor) -> tuple[Tensor, Tensor]:
    value = call(student, *rest)
    return value.detach(), torch.autograd.grad(value, student)[0]


def at_the_limit(name: str, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    sides = (side.detach().double().clamp_min(FAR) for side in (student, teacher))
    student, teacher = sides
    return value_and_gradient(TABLE[name].call, student.requires_grad_(), teacher)


def assert_right(found: tuple[Tensor, Tensor], right: tuple[Tensor, Tensor]) -> None:
    """A value as good as single precision, a gradient as good as the student's own numbers."""
    loose = 20 * torch.finfo(found[1].dtype).eps
    torch.testing.assert_close(found[0].double(), right[0], rtol=2e-5, atol=2e-6)
    scale = right[1].abs().max().item()
    # A rounding in single precision is 1.2e-7, and a weight such as DKD's 8 multiplies it.
    torch.testing.assert_close(found[1].double(), right[1], rtol=loose, atol=loose * scale + 2e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", TABLE)
def test_minus_infinity_is_at_its_limit_or_refused(name, dtype):
    for pattern in PATTERNS:
        for side in SIDES:
            student, teacher = changed(name, side, dtype, pattern)
            try:
                found = value_and_gradient(TABLE[name].call, student, teacher)
            except ValueError as error:
                refusal = str(error)
                assert "-inf" in refusal or "teacher log-probabilities" in refusal
                has_limit = name in TAKES_MINUS_INFINITY and pattern in ROWS_LEFT
                if has_limit and (name, pattern) not in IMPOSSIBLE:
                    limit = at_the_limit(name, student, teacher)[0]
                    assert limit > 100, (pattern, side, refusal)
            else:
                assert name in TAKES_MINUS_INFINITY or (name, side) == TEACHER_LOGITS
                assert_right(found, at_the_limit(name, student, teacher))


# The others draw or speak what is ruled out, or count what is hidden as TinyBERT does.
CROPPED = set(TAKES_MINUS_INFINITY) - {"sampled_kl", "sequence_reverse_kl", "attention_score_loss"}


@pytest.mark.parametrize("name", sorted(CROPPED))
def test_a_class_that_both_rule_out_is_as_if_it_were_not_there(name):
    student, teacher = changed(name, "both", torch.float32, lambda x: None)
    exact = student.detach().double().requires_grad_()
    right = value_and_gradient(TABLE[name].call, exact, teacher.double())
    ruled_out = torch.full_like(teacher[..., :2], -torch.inf)
    wider = torch.cat([student.detach(), ruled_out], -1).requires_grad_()
    value, gradient = value_and_gradient(
        TABLE[name].call, wider, torch.cat([teacher, ruled_out], -1)
    )
    assert gradient[..., -2:].abs().max() == 0
    assert_right((value, gradient[..., :-2]), right)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("number", [0.0, 1.0])
def test_sides_that_are_the_same_everywhere_are_right_too(name, number):
    for side in SIDES:
        student, teacher = changed(name, side, torch.float32, lambda x: x.fill_(number))
        exact = student.detach().double().requires_grad_()
        right = value_and_gradient(TABLE[name].call, exact, teacher.double())
        assert_right(value_and_gradient(TABLE[name].call, student, teacher), right)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
def test_infinity_and_nan_are_named_wherever_they_stand(name, bad):
    def last(x: Tensor) -> None:
        x.view(-1)[-1] = bad

    def first_row(x: Tensor) -> None:
        x[..., 0, :] = bad

    for change in (last, first_row):
        for side in SIDES:
            student, teacher = changed(name, side, torch.float16, change)
            with pytest.raises(ValueError, match="contain (inf|NaN)"):
                TABLE[name].call(student, teacher)


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("scale", [1e-30, 1e10, 1e25, 1e38])
def test_numbers_at_the_ends_of_single_precision_are_right_or_refused(name, scale):
    student, teacher = changed(name, "both", torch.float32, lambda x: x.mul_(scale))
    try:
        found = value_and_gradient(TABLE[name].call, student, teacher)
    except ValueError:
        assert scale > 1
    else:
        exact = student.detach().double().requires_grad_()
        assert_right(found, value_and_gradient(TABLE[name].call, exact, teacher.double()))


@pytest.mark.parametrize("name", TABLE)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_numbers_below_the_normal_range_have_a_finite_gradient(name, dtype):
    """What ignores the scale has a slope of one over it, which these numbers have no place for."""
    smallest = torch.finfo(dtype).smallest_normal
    for scale in (smallest * torch.finfo(dtype).eps, smallest / 100, smallest, 100 * smallest):
        for side in SIDES:
            student, teacher = changed(name, side, dtype, lambda x, scale=scale: x.mul_(scale))
            value, gradient = value_and_gradient(TABLE[name].call, student, teacher)
            assert value.isfinite()
            assert gradient.isfinite().all()


OF_FEATURES = [name for name, spec in TABLE.items() if spec.kind in ("features", "embeddings")]
PARTS = {
    "channel": lambda x: x[:, 1],
    "sample": lambda x: x[1],
    "element": lambda x: x[(1,) * x.dim()],
}


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("name", OF_FEATURES)
def test_a_part_of_another_size_than_the_rest_is_right_or_refused(name, part):
    """Gradients times numbers, as those of what ignores the scale grow as the numbers shrink."""
    # One loud channel makes cosines of -1, for which PKT's page asks for float64.
    loud = () if (name, part) == ("pkt_loss", "channel") else (3, 5, 10, 15, 21, 30)
    for power in (-30, -23, -21, -15, -10, -5, -3, *loud):
        for side in SIDES:
            student, teacher = changed(
                name, side, torch.float32, lambda x, power=power: PARTS[part](x).mul_(10.0**power)
            )
            try:
                value, gradient = value_and_gradient(TABLE[name].call, student, teacher)
            except ValueError:
                assert power > 0
                continue
            assert gradient.isfinite().all()
            exact = student.detach().double().requires_grad_()
            right = value_and_gradient(TABLE[name].call, exact, teacher.double())
            torch.testing.assert_close(value.double(), right[0], rtol=2e-5, atol=2e-6)
            shares, wanted = (gradient * student).double(), right[1] * exact
            atol = 2e-5 * wanted.abs().max().item() + 1e-6
            torch.testing.assert_close(shares, wanted, rtol=0, atol=atol)


def zeros(x: Tensor) -> None:
    x.zero_()


def same(x: Tensor) -> None:
    x.fill_(2)


def same_rows(x: Tensor) -> None:
    x[:] = x[..., :1]


def same_samples(x: Tensor) -> None:
    x[:] = x[:1]


def silent_sample(x: Tensor) -> None:
    x[1] = 0


def silent_channel(x: Tensor) -> None:
    x[:, 1] = 0


def rectified(x: Tensor) -> None:
    x.relu_()


CORNERS = [zeros, same, same_rows, same_samples, silent_sample, silent_channel, rectified]
TWICE = {name: spec.call for name, spec in TABLE.items() if spec.second} | {
    f"attention_transfer_loss/{convention} {p}": plain(
        "attention_transfer_loss", convention=convention, p=p
    )
    for convention in ("code", "paper")
    for p in (1, 1.5, 2, 2.5, 3)
}


@pytest.mark.parametrize("name", TWICE)
def test_second_derivatives_are_finite_where_a_norm_or_a_power_is_at_its_corner(name):
    kind = TABLE[name.split(" ")[0].replace("/code", "")].kind
    torch.manual_seed(4)
    pair = [2 * torch.randn(SHAPES[kind]) for _ in range(2)]
    for change in CORNERS:
        sides = [tensor.clone() for tensor in pair]
        for tensor in sides:
            change(tensor)
        for student, teacher in (
            (sides[0], pair[1]),
            (pair[0], sides[1]),
            (sides[0], sides[1]),
            (sides[0], sides[0].clone()),
        ):
            student = student.clone().requires_grad_()
            value = TWICE[name](student, teacher)
            (slope,) = torch.autograd.grad(value, student, create_graph=True)
            assert slope.isfinite().all(), change
            if not slope.requires_grad:  # a sum of parts of lines
                continue
            for of in (slope.sum(), slope.square().sum()):
                second = torch.autograd.grad(of, student, retain_graph=True, allow_unused=True)[0]
                assert second is None or second.isfinite().all(), change


@pytest.mark.parametrize("classes", [10, 100, 1000])
def test_dist_at_agreement_is_what_its_epsilon_leaves(classes):
    torch.manual_seed(0)
    logits = 5 * torch.randn(64, classes, dtype=torch.float64)
    p = logits.softmax(1)
    squares = [(p - p.mean(dim, keepdim=True)).square().sum(dim) for dim in (0, 1)]
    expected = sum((1e-8 / (n + 1e-8)).mean() for n in squares)
    torch.testing.assert_close(losses.dist_loss(logits, logits), expected, rtol=1e-6, atol=1e-14)
    assert 1e-8 < expected < {10: 1e-7, 100: 2e-5, 1000: 2e-2}[classes]


LABELED = ("target_class_loss", "nontarget_class_loss", "dkd_loss", "distillation_loss")
SOFTENED = [
    "soft_target_loss",
    "soft_cross_entropy",
    "forward_kl",
    "reverse_kl",
    "generalized_jsd",
    "binary_distillation_loss",
    "multi_label_distillation_loss",
    "target_class_loss",
    "nontarget_class_loss",
    "dkd_loss",
    "distillation_loss",
    "dist_loss",
]


@pytest.mark.parametrize("name", SOFTENED)
def test_a_high_temperature_is_right_or_refused(name):
    """T² times a divergence that shrinks as 1/T² is what rounding left of it, in the end."""
    torch.manual_seed(6)
    student, teacher = 2 * torch.randn(2, 16, 10)
    labels = (torch.arange(16) % 10,) if name in LABELED else ()
    loss = getattr(losses, name)
    for temperature in (4.0, 20.0, 60.0, 110.0, 200.0, 1e4, 1e8):
        try:
            found = loss(student, teacher, *labels, temperature=temperature)
        except ValueError as error:
            assert temperature == 1e8
            assert "too equal to be compared, in float64 too: use less" in str(error)
        else:
            sides = student.double(), teacher.double()
            right = loss(*sides, *labels, temperature=temperature)
            assert temperature < 1e8
            torch.testing.assert_close(found.double(), right, rtol=5e-3, atol=1e-6)


def hide(tensor: Tensor, mask: Tensor, number: float) -> Tensor:
    """A copy with a number in all that belongs to a token that does not count."""
    kept = mask[..., None]
    if tensor.dim() == 4:
        kept = mask[:, None, :, None] & mask[:, None, None, :]
    return tensor.detach().where(kept, number)


# Means over sequences; the others are means over tokens, and one of them over pairs of tokens.
PER_SEQUENCE = ("relation_loss", "sequence_reverse_kl")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", MASKED)
def test_what_a_mask_drops_may_hold_anything(name, dtype):
    """Against each sequence cropped, alone, in float64. The last one has no token left at all."""
    torch.manual_seed(5)
    lengths = [3, 2] if name == "relation_loss" else [3, 2, 0]  # that one needs a mean of each
    shape = (len(lengths), *SHAPES[MASKED[name]][1:])
    student, teacher = (2 * torch.randn(shape).to(dtype) for _ in range(2))
    mask = torch.arange(shape[-2]) < torch.tensor(lengths)[:, None]
    call = masked_call(name)

    exact = student.double().requires_grad_()
    power = 0 if name in PER_SEQUENCE else 2 if name == "attention_score_loss" else 1
    parts = [
        length**power
        * call(*(cropped(x[i : i + 1], length) for x in (exact, teacher.double())), None)
        for i, length in enumerate(lengths)
        if length
    ]
    total = sum(parts) / (len(lengths) if power == 0 else sum(n**power for n in lengths))
    right = total.detach(), torch.autograd.grad(total, exact)[0]
    for number in (-torch.inf, torch.inf, torch.nan, -1e4):
        for sides in ("student", "teacher", "both"):
            ours = student if sides == "teacher" else hide(student, mask, number)
            theirs = teacher if sides == "student" else hide(teacher, mask, number)
            ours = ours.clone().requires_grad_()
            assert_right(value_and_gradient(call, ours, theirs, mask), right)
