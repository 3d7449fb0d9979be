"""CRD's memories: what they hold, when they move, what is drawn of them, what is refused."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlearn.distill import CRDLoss, Distiller, crd_term, label_term
from kdlearn.losses import crd_loss
from kdlearn.training import Checkpoints, Engine, fit

LABELS = torch.arange(30) % 3
IMAGES = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))


def network(width):
    return nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3))


def distiller(seed=0, **options):
    torch.manual_seed(seed)
    loss = CRDLoss(4, 8, LABELS, negatives=5, width=7, **options)
    term = crd_term("crd", loss, "1", "1")
    return Distiller(network(4), network(8), [label_term(), term])


@pytest.fixture
def loss():
    return distiller().projectors["crd"]


def features(rows):
    torch.manual_seed(1)
    return torch.randn(len(rows), 4), torch.randn(len(rows), 8), torch.tensor(rows)


def embedded(linear, x):
    return F.normalize(x @ linear.weight.T + linear.bias)


def test_memories_start_as_directions_that_know_nothing(loss):
    for memory in (loss.student_memory, loss.teacher_memory):
        torch.testing.assert_close(memory.norm(dim=1), torch.ones(30))
    assert loss.constants.isnan().all()


def test_negatives_are_all_rows_of_other_classes_and_no_row_of_the_own():
    labels = torch.tensor([2, 0, 2, 1, 0, 2])
    loss = CRDLoss(1, 1, labels, negatives=500)
    drawn = loss._others(torch.arange(6))
    for row, others in enumerate(drawn):
        assert set(others.tolist()) == {i for i in range(6) if labels[i] != labels[row]}


def test_negatives_are_drawn_evenly():
    torch.manual_seed(0)
    drawn = CRDLoss(1, 1, torch.tensor([0, 1, 1, 2, 2]), negatives=40000)._others(torch.tensor([0]))
    shares = drawn[0].bincount(minlength=5) / 40000
    torch.testing.assert_close(shares, torch.tensor([0, 0.25, 0.25, 0.25, 0.25]), atol=0.01, rtol=0)


def test_without_labels_all_other_samples_are_negatives():
    loss = CRDLoss(1, 1, torch.arange(4), negatives=200)
    assert set(loss._others(torch.tensor([2]))[0].tolist()) == {0, 1, 3}


def test_the_loss_is_two_halves_whose_constants_are_means_of_the_first_batch(loss):
    student, teacher, rows = features([3, 7])
    before = loss.student_memory.clone(), loss.teacher_memory.clone()
    torch.manual_seed(5)
    value = loss(student, teacher, rows)
    torch.manual_seed(5)
    places = torch.cat([rows[:, None], loss._others(rows)], 1)
    own = embedded(loss.embed_student, student), embedded(loss.embed_teacher, teacher)
    expected = 0
    for anchor, memory in zip(own, reversed(before), strict=True):
        mean = (anchor @ memory.T / 0.07).exp().gather(1, places).mean().item()
        expected = expected + crd_loss(anchor, memory, places, normalizer=mean)
    torch.testing.assert_close(value, expected)


def test_constants_stay_as_the_first_batch_set_them(loss):
    loss(*features([3, 7]))
    first = loss.constants.clone()
    loss(*features([1, 2]))
    assert torch.equal(loss.constants, first)
    assert first.isfinite().all()


def test_a_batch_moves_its_own_rows_half_of_the_way(loss):
    student, teacher, rows = features([3, 7])
    before = loss.student_memory.clone()
    loss(student, teacher, rows)
    halfway = before[rows] / 2 + embedded(loss.embed_student, student) / 2
    torch.testing.assert_close(loss.student_memory[rows], F.normalize(halfway))
    others = [row for row in range(30) if row not in (3, 7)]
    assert torch.equal(loss.student_memory[others], before[others])


def test_in_eval_nothing_moves(loss):
    before = loss.student_memory.clone()
    loss.eval()(*features([3, 7]))
    assert torch.equal(loss.student_memory, before)


def test_gradients_reach_both_embeddings_and_the_student_alone(loss):
    student, teacher, rows = features([3, 7])
    student.requires_grad_()
    teacher.requires_grad_()
    loss(student, teacher, rows).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None
    assert loss.embed_student.weight.grad.abs().sum() > 0
    assert loss.embed_teacher.weight.grad.abs().sum() > 0
    assert {name for name, _ in loss.named_parameters()} == {
        f"embed_{side}.{part}" for side in ("student", "teacher") for part in ("weight", "bias")
    }


def test_maps_are_flattened():
    torch.manual_seed(0)
    loss = CRDLoss(12, 8, torch.arange(4), negatives=3).eval()
    student, teacher, rows = torch.randn(2, 3, 2, 2), torch.randn(2, 8), torch.tensor([0, 1])
    torch.manual_seed(1)
    value = loss(student, teacher, rows)
    torch.manual_seed(1)
    assert torch.equal(loss(student.flatten(1), teacher, rows), value)


@pytest.mark.parametrize("size", [1e-30, 1e4, 1e30])
def test_features_of_any_size_keep_value_and_gradient_finite(loss, size):
    student, teacher, rows = features([3, 7])
    student = (size * student).requires_grad_()
    value = loss(student, size * teacher, rows)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_half_precision_is_computed_in_single(loss):
    student, teacher, rows = features([3, 7])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(student.bfloat16(), teacher.bfloat16(), rows)
    assert value.dtype == torch.float32
    assert math.isfinite(value.item())


def trained(**options):
    model = distiller()
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, "progress": False}
    fit(model, (IMAGES, LABELS), **{**settings, **options})
    return model


def test_fit_tells_the_loss_which_rows_it_sees():
    model = trained()
    loss = model.projectors["crd"]
    with torch.no_grad():
        now = embedded(loss.embed_student, model.student[:2](IMAGES))
    own = (now * loss.student_memory).sum(1)
    assert own.mean() > 0.9 > (now * loss.student_memory.roll(7, 0)).sum(1).mean() + 0.1


def test_a_stopped_and_resumed_run_equals_one_that_never_stopped(tmp_path):
    whole = trained()
    every = Checkpoints(tmp_path, every_steps=5, keep=9)
    trained(checkpoints=every)
    again = distiller(seed=9)
    again.teacher.load_state_dict(whole.teacher.state_dict())
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 0.01, "progress": False}
    fit(
        again,
        (IMAGES, LABELS),
        checkpoints=every,
        resume=str(tmp_path / "step-00000005"),
        **settings,
    )
    state = again.state_dict()
    assert {"projectors.crd.student_memory", "projectors.crd.constants"} < state.keys()
    assert all(torch.equal(value, state[name]) for name, value in whole.state_dict().items())


def test_pieces_of_a_batch_move_the_memories_once():
    torch.testing.assert_close(
        trained(engine=Engine(accumulate=3)).projectors["crd"].student_memory,
        trained().projectors["crd"].student_memory,
        rtol=1e-4,
        atol=1e-5,
    )


def test_settings_tell_one_run_from_another(loss):
    assert "negatives=5, temperature=0.07, momentum=0.5" in repr(loss)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": None}, r"CRD needs the rows .* distiller\(inputs, labels, rows\)"),
        ({"rows": torch.tensor([3.0, 7.0])}, r"rows are torch.float32 .* one torch.int64 for each"),
        ({"rows": torch.tensor([3])}, r"shape \(1,\): expected one torch.int64 for each of 2"),
        ({"rows": torch.tensor([3, 30])}, r"from 3 to 30 and CRD was made for 30 labels"),
        ({"rows": torch.tensor([-1, 3])}, r"rows go from -1 to 3"),
        ({"student": torch.ones(2, 5)}, r"\(2, 5\) and \(2, 8\), .* made for widths 4 and 8"),
        ({"teacher": torch.ones(3, 8)}, r"\(2, 4\) and \(3, 8\)"),
        ({"student": torch.full((2, 4), torch.nan)}, r"student features contain NaN"),
    ],
)
def test_what_it_cannot_compare_is_refused(loss, change, message):
    student, teacher, rows = features([3, 7])
    given = {"student": student, "teacher": teacher, "rows": rows, **change}
    before = loss.student_memory.clone()
    with pytest.raises(ValueError, match=message):
        loss(given["student"], given["teacher"], given["rows"])
    assert torch.equal(loss.student_memory, before)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(4).long(), ValueError, r"labels have 1 class: .* or torch.arange\(samples\)"),
        (torch.zeros(4), TypeError, r"labels must be a tensor of torch.int64"),
        ([0, 1], TypeError, r"labels must be a tensor of torch.int64"),
        (torch.zeros(2, 2).long(), TypeError, r"of shape \(samples,\)"),
    ],
)
def test_labels_without_a_negative_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        CRDLoss(4, 8, labels)


@pytest.mark.parametrize(
    "option", [{"negatives": 0}, {"width": 0}, {"temperature": 0.0}, {"momentum": 1.5}]
)
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        CRDLoss(4, 8, LABELS, **option)
