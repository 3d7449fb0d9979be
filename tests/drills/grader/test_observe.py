"""What a run of a solution is seen to do besides its result."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlearn.drills import find
from kdlearn.drills.grader.grade import grade
from kdlearn.drills.grader.observe import Origin, other_kind

STEP, CACHE, CAPTURE, KD = map(find, ("train-step", "teacher-cache", "capture-features", "kd-loss"))


def ids(drill, solution):
    return [one.id for one in grade(drill, solution, seed=3).diagnoses]


def after(action):
    """The right step, and something more."""

    def solution(student, teacher, images, labels, optimizer, *, temperature, weight):
        loss = STEP.reference(
            student, teacher, images, labels, optimizer, temperature=temperature, weight=weight
        )
        action(student, teacher, optimizer, images)
        return loss

    return solution


@pytest.mark.parametrize(
    ("action", "effect"),
    [
        (lambda s, t, o, x: s.register_forward_hook(lambda *a: None), "hook-left"),
        (lambda s, t, o, x: setattr(t, "forward", t.forward), "model-patched"),
        (lambda s, t, o, x: setattr(s[1], "momentum", 0.5), "model-patched"),
        (lambda s, t, o, x: s[0].eval(), "mode-not-put-back"),
        (lambda s, t, o, x: t.requires_grad_(False), "requires-grad-changed"),
        (lambda s, t, o, x: t(x).sum().backward(), "gradient-left"),
        (lambda s, t, o, x: t[0].weight.data.add_(1), "weights-changed"),
        (lambda s, t, o, x: o.param_groups[0].update(lr=1.0), "optimizer-changed"),
        (lambda s, t, o, x: x.zero_(), "inputs-changed"),
        (lambda s, t, o, x: torch.set_grad_enabled(False), "grad-mode-left"),
        (lambda s, t, o, x: torch.set_default_dtype(torch.float64), "global-changed"),
        (lambda s, t, o, x: torch.rand(1), "global-random"),
    ],
)
def test_what_is_left_behind_is_told_as_what_it_is(action, effect):
    assert ids(STEP, after(action)) == [effect]
    assert torch.is_grad_enabled() and torch.get_default_dtype() == torch.float32


def test_a_live_loss_where_a_number_is_due_is_told():
    def solution(student, teacher, images, labels, optimizer, *, temperature, weight):
        loss = after(lambda *a: None)(
            student, teacher, images, labels, optimizer, temperature=temperature, weight=weight
        )
        return loss + 0 * student[0].weight.sum()

    assert ids(STEP, solution) == ["live-graph"]


def test_a_global_hook_is_told_and_the_teachers_copy():
    def copying(teacher, images, *, batch_size):
        import copy

        return CACHE.reference(copy.deepcopy(teacher), images, batch_size=batch_size)

    assert "copied-model" in ids(CACHE, copying)

    def hooked(model, name, images):
        handle = nn.modules.module.register_module_forward_hook(lambda *a: None)
        hooked.handles.append(handle)
        return CAPTURE.reference(model, name, images)

    hooked.handles = []
    try:
        assert ids(CAPTURE, hooked) == ["global-changed"]
    finally:
        for handle in hooked.handles:
            handle.remove()


@pytest.mark.parametrize(
    ("change", "effect"),
    [
        (lambda rows, batch: torch.cat([rows(batch), rows(batch)])[: len(batch)], "run-twice"),
        (lambda rows, batch: torch.enable_grad()(rows)(batch).detach(), "graph-recorded"),
    ],
)
def test_how_the_teacher_runs_is_seen(change, effect):
    def solution(teacher, images, *, batch_size):
        modes = [(part, part.training) for part in teacher.modules()]
        teacher.eval()
        with torch.no_grad():
            stored = torch.cat([change(teacher, batch) for batch in images.split(batch_size)])
        for part, mode in modes:
            part.training = mode
        return stored

    assert ids(CACHE, solution) == [effect]


def test_all_images_at_once_are_seen():
    def solution(teacher, images, *, batch_size):
        return CACHE.reference(teacher, images, batch_size=len(images))

    assert ids(CACHE, solution) == ["all-at-once"]


def test_a_forbidden_call_is_told():
    def by_torch(logits, *, temperature):
        return F.softmax(logits / temperature, dim=-1)

    assert ids(find("softmax-temperature"), by_torch) == ["forbidden"]


@pytest.mark.parametrize(
    ("right", "given", "name"),
    [
        (torch.tensor(1.0), (torch.tensor(1.0),), "tuple-returned"),
        (torch.ones(2, requires_grad=True).sum(), 2.0, "no-tensor"),
        (torch.ones(2), torch.ones(2, 1), "wrong-shape"),
        (1.0, "1", "wrong-kind"),
        ((1, 2), (1, 2, 3), "wrong-length"),
        ({"a": 1.0}, {"A": 1.0}, "other-keys"),
        ({"a": 1.0}, {"a": torch.ones(2)}, "wrong-shape"),
        ([True], ["yes"], "wrong-kind"),
    ],
)
def test_results_of_another_kind_are_told(right, given, name):
    assert other_kind(right, given)[0] == name


@pytest.mark.parametrize(
    ("right", "given"),
    [(1.0, torch.tensor(1.0)), (torch.tensor(1.0), 1.0), (True, torch.tensor(True)), ([1], (1,))],
)
def test_a_number_and_a_tensor_of_one_number_are_as_good(right, given):
    assert other_kind(right, given) is None


def test_a_nan_is_told_by_its_origin():
    with Origin("") as origin:
        x = torch.tensor([0.0, 1.0])
        _ = (x * x.log()).sum()
    assert origin.story() == "log gives an infinity, and mul makes NaN of it"
