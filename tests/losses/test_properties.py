"""What every loss promises, and what it does not: one table, one test a promise."""

import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Callable
from fractions import Fraction

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from kdlearn import losses
from tests.losses import table
from tests.losses.table import MASKED, SHAPES, TABLE, cropped, masked_call

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


def test_every_public_function_of_a_family_is_offered():
    for module in pkgutil.iter_modules(losses.__path__):
        if module.name in ("maps", "rows"):  # what losses are made of
            continue
        family = importlib.import_module(f"kdlearn.losses.{module.name}")
        for name, value in vars(family).items():
            if getattr(value, "__module__", None) == family.__name__ and not name.startswith("_"):
                assert name in losses.__all__, f"{family.__name__}.{name} is not exported"


ABOUT = [name for name in losses.__all__ if name != "layer_map"]


@pytest.mark.parametrize("name", ABOUT)
def test_a_page_has_formula_convention_source_and_example(name):
    page = inspect.getdoc(getattr(losses, name))
    for part in (".. math::", "\nConvention\n", "\nSource: ", "\nExample:\n    >>> "):
        assert part in page, f"{name} has no {part.strip()}"
    # What all losses keep stands in kdlearn.losses.
    assert "the teacher is detached" not in page
    assert "TypeError" not in page


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
def test_student_and_teacher_may_have_different_precision(pair):
    name, student, teacher = pair
    exact = TABLE[name].call(student, teacher)
    for sides in ((student.float(), teacher), (student, teacher.float())):
        value = TABLE[name].call(*sides)
        torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=1e-6)


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
    monkeypatch.setattr(table, "LABELS", labels)
    flat = TABLE[name].call(student, teacher)
    monkeypatch.setattr(table, "LABELS", labels.reshape(2, 3))
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


def flipped(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.flip_symmetry_loss(student, teacher)


def standardized(student: Tensor, teacher: Tensor) -> Tensor:
    return (losses.standardize_logits(student) * teacher).sum()


def next_tokens(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.cross_entropy(student, teacher.argmax(-1))


COMPILED = {name: (spec.kind, spec.call) for name, spec in TABLE.items()} | {
    "flip_symmetry_loss": ("features", flipped),
    "standardize_logits": ("logits", standardized),
    "cross_entropy": ("tokens", next_tokens),
    "VIDLoss": ("features", losses.VIDLoss(4, 4)),
    "MGDLoss": ("features", losses.MGDLoss(4, 4)),
    "forward_kl/chunk": (
        "tokens",
        lambda s, t: losses.forward_kl(s.flatten(0, 1), t.flatten(0, 1), chunk=3),
    ),
}


def with_mask(name: str) -> Callable[[Tensor, Tensor], Tensor]:
    def call(student, teacher):
        length = student.shape[-2]
        return masked_call(name)(student, teacher, torch.arange(length).expand(2, -1) < length - 1)

    return call


def hidden_top_k(tail: str) -> Callable[[Tensor, Tensor], Tensor]:
    def call(student, teacher):
        mask = torch.arange(student.shape[1]).expand(2, -1) < 2
        return losses.top_k_kl(student, *teacher.log_softmax(-1).topk(3), tail=tail, mask=mask)

    return call


COMPILED |= {f"{name}/mask": (kind, with_mask(name)) for name, kind in MASKED.items()}
COMPILED |= {f"top_k_kl/{t}/mask": ("tokens", hidden_top_k(t)) for t in ("ignore", "renormalize")}


@pytest.mark.parametrize("name", COMPILED)
def test_compiles_in_one_graph_to_the_same_value_and_gradient(name):
    kind, call = COMPILED[name]
    torch.manual_seed(6)
    student, teacher = torch.randn(2, *SHAPES[kind]).unbind()
    student.requires_grad_()
    found = []
    torch.compiler.reset()
    for function in (torch.compile(call, fullgraph=True, backend="aot_eager"), call):
        torch.manual_seed(7)
        value = function(student, teacher)
        found.append((value.detach(), torch.autograd.grad(value, student)[0]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


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
    if name == "sampled_reverse_kl/k3":  # it is infinite: e to the 20,000
        with pytest.raises(ValueError, match="sampled_reverse_kl is inf"):
            TABLE[name].call(student, (teacher.sign() * 1e4).to(dtype))
        return
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


def arguments_of(name: str, monkeypatch) -> tuple[Callable[..., Tensor], tuple, dict]:
    """The loss behind a call of the table, and what the call gave it; student and teacher float32.

    A loss that calls another is the first of the two.
    """
    kind, call = COMPILED[name]
    torch.manual_seed(8)
    student, teacher = torch.randn(2, *SHAPES[kind]).unbind()
    seen = []

    def recorded(loss):
        def record(*args, **kwargs):
            seen.append((loss, args, kwargs))
            return loss(*args, **kwargs)

        return record

    if isinstance(call, torch.nn.Module):
        return call, (student.requires_grad_(), teacher), {}
    base = name.split("/")[0]
    monkeypatch.setattr(losses, base, recorded(getattr(losses, base)))
    call(student.requires_grad_(), teacher)
    monkeypatch.undo()
    return seen[0]


def replaced(given, change: Callable[[Tensor], Tensor]):
    """Arguments with a change of all tensors but the student's, which are to be learned."""
    if isinstance(given, Tensor):
        return given if given.requires_grad else change(given)
    if isinstance(given, tuple):
        return tuple(replaced(member, change) for member in given)
    if isinstance(given, dict):
        return {name: replaced(member, change) for name, member in given.items()}
    return given


def inference_copy(tensor: Tensor) -> Tensor:
    with torch.inference_mode():
        return tensor.clone()


@pytest.mark.parametrize("name", COMPILED)
def test_takes_what_was_made_under_inference_mode(name, monkeypatch):
    """The teacher's side, labels, tokens and masks: all but what is learned."""
    loss, args, kwargs = arguments_of(name, monkeypatch)
    student = args[0][0] if isinstance(args[0], tuple) else args[0]
    found = []
    for change in (inference_copy, torch.clone):
        torch.manual_seed(9)
        value = loss(*replaced(args, change), **replaced(kwargs, change))
        value = value if value.dim() == 0 else value.sum()
        found.append((value.detach(), *torch.autograd.grad(value, student, retain_graph=True)))
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


@pytest.mark.parametrize("name", COMPILED)
def test_validates_under_inference_mode(name, monkeypatch):
    loss, args, kwargs = arguments_of(name, monkeypatch)
    torch.manual_seed(9)
    right = loss(*args, **kwargs)
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            torch.manual_seed(9)
            torch.testing.assert_close(loss(*args, **kwargs), right.detach(), rtol=0, atol=0)
            torch.manual_seed(9)
            made_there = [replaced(given, torch.clone) for given in (args, kwargs)]
            torch.testing.assert_close(
                loss(*made_there[0], **made_there[1]), right.detach(), rtol=0, atol=0
            )


@pytest.mark.parametrize("name", [name for name in COMPILED if name != "standardize_logits"])
def test_refuses_every_tensor_that_is_on_another_device(name, monkeypatch):
    loss, args, kwargs = arguments_of(name, monkeypatch)
    given = {**dict(enumerate(args)), **kwargs}
    elsewhere = [key for key, value in given.items() if key != 0 and isinstance(value, Tensor)]
    assert elsewhere or name in ("flip_symmetry_loss", "fsp_loss", "relation_loss/pair")
    for key in elsewhere:
        moved = {**given, key: given[key].to("meta")}
        with pytest.raises(
            ValueError, match=r" are on (cpu|meta) and .* on (cpu|meta): move one of them.$"
        ):
            loss(*(moved[i] for i in range(len(args))), **{k: moved[k] for k in kwargs})


NUMBERS = [
    pytest.param(name, parameter.name, id=f"{name}-{parameter.name}")
    for name in COMPILED
    if "/" not in name and name[0].islower()
    for parameter in inspect.signature(getattr(losses, name)).parameters.values()
    if parameter.annotation in (float, "float")
]


@pytest.mark.parametrize(("name", "number"), NUMBERS)
def test_a_number_of_any_kind_is_the_same_number_and_is_not_learned(name, number, monkeypatch):
    loss, args, kwargs = arguments_of(name, monkeypatch)
    plain = 1.5 if number == "p" else 0.75
    right = loss(*args, **kwargs | {number: plain})
    for same in (Fraction(plain), torch.tensor(plain), torch.tensor(plain, dtype=torch.float64)):
        found = loss(*args, **kwargs | {number: same})
        torch.testing.assert_close(found, right, rtol=0, atol=0)
    for wrong in (torch.tensor(0.75, requires_grad=True), torch.tensor([0.75]), "0.75", None, True):
        with pytest.raises(TypeError, match=rf"^{number} is .*: expected one number\."):
            loss(*args, **kwargs | {number: wrong})


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


@pytest.fixture
def masked(request):
    """(call(student, teacher, mask), student, teacher, length) of one masked loss."""
    torch.manual_seed(2)
    student, teacher = torch.randn(2, *SHAPES[MASKED[request.param]], dtype=torch.float64).unbind()
    return masked_call(request.param), student, teacher, student.shape[-2]


each_masked = pytest.mark.parametrize("masked", MASKED, indirect=True)


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
