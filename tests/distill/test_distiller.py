import copy
import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.parameter import is_lazy
from torch.utils.checkpoint import checkpoint

from kdlearn.data import Batch
from kdlearn.distill import Distiller, Term, label_term, layer_term, logit_term
from kdlearn.losses import attention_transfer_loss, forward_kl, soft_target_loss
from kdlearn.measure import evaluate
from kdlearn.store import cache_teacher


def network(width: int, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(1, width, 3, padding=1))
    model.add_module("norm", nn.BatchNorm2d(width))
    model.add_module("relu", nn.ReLU(inplace=True))
    model.add_module("drop", nn.Dropout(0.5))
    model.add_module("head", nn.Sequential(nn.Flatten(), nn.Linear(width * 16, 5)))
    return model


class Projected(nn.Module):
    def __init__(self, student: int, teacher: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(student, teacher, 1)

    def forward(self, student, teacher):
        return F.mse_loss(self.project(student), teacher)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(6, 1, 4, 4, generator=generator), torch.tensor([0, 1, 2, 3, 4, 0])


def terms():
    return [
        label_term(0.1),
        logit_term("soft_targets", soft_target_loss, 0.9),
        layer_term("attention", attention_transfer_loss, ["relu"], 1000.0),
    ]


def test_the_total_is_the_weighted_sum_worked_out_by_hand(batch):
    images, labels = batch
    student, teacher = network(2, 1).eval(), network(4, 2).eval()
    result = Distiller(student, teacher, terms()).eval()(images, labels)
    features = [model.relu(model.norm(model.conv(images))) for model in (student, teacher)]
    maps = [F.normalize(f.square().sum(1).flatten(1)) for f in features]
    soft = [F.log_softmax(model(images) / 4, dim=1) for model in (student, teacher)]
    expected = {
        "labels": 0.1 * F.cross_entropy(student(images), labels),
        "soft_targets": 0.9 * 16 * (soft[1].exp() * (soft[1] - soft[0])).sum(1).mean(),
        "attention": 1000 * (maps[0] - maps[1]).square().mean(),
    }
    for name, value in expected.items():
        assert torch.allclose(result.parts[name], value, rtol=1e-4), name
    assert torch.allclose(result.total, sum(expected.values()), rtol=1e-4)
    assert torch.equal(result.logits, student(images))


def test_pairs_of_layers_are_summed_and_may_have_other_names(batch):
    student, teacher = network(2, 1).eval(), network(4, 2).eval()
    one = {"conv": "norm"}, {"relu": "conv"}
    both = {"conv": "norm", "relu": "conv"}

    def total(layers):
        term = layer_term("attention", attention_transfer_loss, layers)
        return Distiller(student, teacher, [term]).eval()(*batch).total

    assert torch.allclose(total(both), total(one[0]) + total(one[1]))
    assert total(one[0]) != total(one[1])


def test_the_teacher_stays_in_eval_and_unchanged_through_training(batch):
    student, teacher = network(2), network(4)
    before = copy.deepcopy(teacher.state_dict())
    distiller = Distiller(student, teacher, terms())
    distiller.train()
    assert student.training
    teacher.train()
    distiller(*batch).total.backward()
    assert not any(module.training for module in teacher.modules())
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    assert all(p.grad is None for p in teacher.parameters())
    assert all(p.grad is not None for p in student.parameters())


def test_a_frozen_base_that_both_have_is_in_eval_for_the_teacher_alone(batch):
    base, seen = nn.Sequential(nn.Flatten(), nn.Dropout(0.5)), []

    class Adapted(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.head = base, nn.LazyLinear(3)

        def forward(self, images):
            return self.head(self.base(images))

    base[1].register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    student, teacher = Adapted(), Adapted()
    for model in (student, teacher):
        model(batch[0])
    distiller = Distiller(student, teacher, [logit_term("soft", soft_target_loss)]).train()
    seen.clear()
    for _ in range(2):
        distiller(batch[0])
    assert seen == [False, True] * 2


def test_parameters_and_state_are_the_students_and_the_projectors_alone():
    student, teacher = network(2), network(4)
    projected = Projected(2, 4)
    distiller = Distiller(student, teacher, [layer_term("hint", projected, ["conv"])])
    expected = {id(p) for p in [*student.parameters(), *projected.parameters()]}
    assert {id(p) for p in distiller.parameters()} == expected
    assert not any("teacher" in name for name in distiller.state_dict())


def test_a_projector_is_trained_and_a_copy_trains_its_own(batch):
    distiller = Distiller(network(2), network(4), [layer_term("hint", Projected(2, 4), ["conv"])])
    twin = copy.deepcopy(distiller)
    twin(*batch).total.backward()
    assert all(p.grad is not None for p in twin.projectors.parameters())
    assert all(p.grad is None for p in distiller.projectors.parameters())


def test_to_moves_the_teacher_along(batch):
    images, labels = batch
    distiller = Distiller(network(2), network(4), terms()).to(torch.float64)
    assert next(distiller.teacher.parameters()).dtype == torch.float64
    assert distiller(images.double(), labels).total.dtype == torch.float64


def test_losses_with_labels_get_all_three(batch):
    def recorded(student, teacher, labels):
        return (student * 0).sum() + labels.sum()

    distiller = Distiller(network(2), network(4), [logit_term("dkd", recorded, with_labels=True)])
    assert distiller(*batch).total == batch[1].sum()


def test_unlabeled_images_are_enough_where_no_term_reads_labels(batch):
    images, _ = batch
    soft = Distiller(network(2), network(4), [logit_term("soft", soft_target_loss)])
    assert soft(images).total > 0
    with pytest.raises(ValueError, match="'labels' reads the labels and none were given"):
        Distiller(network(2), network(4), [label_term()])(images)


def test_works_under_autocast(batch):
    distiller = Distiller(network(2), network(4), terms())
    with torch.autocast("cpu", torch.bfloat16):
        result = distiller(*batch)
    result.total.backward()
    assert torch.isfinite(result.total)


def test_an_unknown_layer_names_the_side_and_the_close_ones():
    term = layer_term("attention", attention_transfer_loss, {"relu": "rleu"})
    with pytest.raises(KeyError, match="teacher: the model has no module 'rleu': close are 'relu'"):
        Distiller(network(2), network(4), [term])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Distiller(network(2), network(2), []), "no terms: pass at least one"),
        (lambda: Distiller(m := network(2), m, [label_term()]), "are one object"),
        (
            lambda: Distiller(network(2), network(2), [label_term(), label_term()]),
            r"share the names \['labels'\]",
        ),
        (lambda: label_term(-1.0), "has weight -1.0: expected a finite number >= 0"),
        (lambda: label_term(float("nan")), "has weight nan"),
        (lambda: label_term(name="a.b"), "without a dot"),
        (lambda: layer_term("at", F.mse_loss, []), "compares no layers: pass layers="),
        (lambda: layer_term("at", F.mse_loss, "relu"), r"pass \['relu'\]"),
    ],
)
def test_bad_input_says_what_to_do(make, says):
    with pytest.raises(ValueError, match=says):
        make()


def test_a_student_that_shares_what_is_trained_with_the_teacher_is_refused():
    teacher = network(4)
    for student in (
        nn.Sequential(teacher.conv, nn.Flatten()),
        nn.Sequential(nn.Conv2d(1, 4, 1), teacher.norm),
    ):
        with pytest.raises(ValueError, match="share memory, .*copy.deepcopy"):
            Distiller(student, teacher, [logit_term("soft", soft_target_loss)])
    frozen = nn.Sequential(copy.copy(teacher.conv), nn.Flatten())
    teacher.conv.requires_grad_(False)
    Distiller(frozen, teacher, [label_term()])


class Checkpointed(nn.Module):
    """A middle part that is computed again in the backward pass, and what comes after it."""

    def __init__(self, reentrant: bool | None, then, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.inner = nn.Sequential(nn.Tanh(), nn.Linear(8, 8))
        self.reentrant, self.then = reentrant, then

    def forward(self, x):
        x = self.first(x)
        if self.reentrant is None:
            x = self.inner(x)
        else:
            x = checkpoint(self.inner, x, use_reentrant=self.reentrant)
        return self.head(self.then(x))


@pytest.mark.parametrize("layer", ["inner", "inner.0", "head"])
@pytest.mark.parametrize("then", [torch.sin, torch.sin_])
@pytest.mark.parametrize("reentrant", [False, True])
def test_a_layer_under_a_checkpoint_trains_or_is_told_to_carry_no_gradient(reentrant, then, layer):
    terms = [label_term(), layer_term("hint", F.mse_loss, [layer])]
    teacher = Checkpointed(None, then, seed=1)
    batch = torch.randn(2, 4), torch.tensor([0, 1])

    def value_and_gradient(kind):
        student = Checkpointed(kind, then)
        loss = Distiller(student, teacher, terms)(*batch)
        loss.total.backward()
        return loss.parts["hint"], *(p.grad for p in student.parameters())

    if reentrant and (layer == "inner.0" or (layer == "inner" and then is torch.sin_)):
        with pytest.raises(ValueError, match=f"{layer!r} of the student carries no gradient"):
            value_and_gradient(reentrant)
    else:
        torch.testing.assert_close(value_and_gradient(reentrant), value_and_gradient(None))


def test_it_can_be_copied_after_use_and_keeps_nothing_of_a_batch(batch):
    def of_its_shape() -> list[torch.Tensor]:
        gc.collect()
        found = (thing for thing in gc.get_objects() if isinstance(thing, torch.Tensor))
        # A lazy weight of another test has no shape.
        return [t for t in found if not is_lazy(t) and t.shape == (6, 2, 4, 4)]

    left_by_others = {id(tensor) for tensor in of_its_shape()}
    distiller = Distiller(network(2), network(4), terms())
    distiller(*batch).total.backward()
    twin = copy.deepcopy(distiller)
    assert torch.equal(twin.student.conv.weight, distiller.student.conv.weight)
    assert {id(tensor) for tensor in of_its_shape()} <= left_by_others


def test_a_mask_that_no_term_reads_is_told():
    tokens = Batch(torch.randn(2, 4), mask=torch.ones(2, 4, dtype=torch.bool))
    linear = nn.Linear(4, 4)
    with pytest.raises(ValueError, match="a mask or weights and no term reads them"):
        Distiller(linear, nn.Linear(4, 4), [logit_term("soft", soft_target_loss)]).compute(tokens)


def test_labels_alone_need_no_teacher(batch):
    alone = Distiller(network(2).eval())
    expected = F.cross_entropy(alone.student(batch[0]), batch[1])
    assert torch.equal(alone(*batch).total, expected)
    with pytest.raises(KeyError, match="teacher: there is none, and a term reads its logits"):
        Distiller(network(2), None, [logit_term("soft", soft_target_loss)])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Distiller(network(2), network(2), label_term()), "terms must be a list of terms"),
        (lambda: Distiller(network(2), network(2), [soft_target_loss]), "make them with label_t"),
        (
            lambda: Distiller("student", network(2), [label_term()]),
            "student is 'student'",
        ),
        (lambda: Distiller(network(2), 3, [label_term()]), "teacher is 3: expected a trained mod"),
        (lambda: Distiller(network(2), nn.Linear, [label_term()]), "expected a trained module"),
        (lambda: label_term(0.5, "cross_entropy"), "has the loss 'cross_entropy': expected a func"),
        (lambda: logit_term(soft_target_loss, "soft"), "the name, a text, comes before the loss"),
        (lambda: label_term("much"), "the weight of term 'labels' is 'much'"),
    ],
)
def test_an_argument_of_another_kind_says_what_to_pass(make, says):
    with pytest.raises(TypeError, match=says):
        make()


def test_an_unknown_layer_of_the_student_names_the_side():
    with pytest.raises(KeyError, match="student: the model has no module 'rleu'"):
        Distiller(network(2), network(4), [layer_term("x", F.mse_loss, {"rleu": "relu"})])


def test_a_model_that_is_stored_or_missing_cannot_be_asked_for():
    with pytest.raises(ValueError, match="there is no model, see .source"):
        _ = Distiller(network(2)).teacher


def test_weights_beside_terms_that_read_a_mask_alone_are_told():
    tokens = Batch(torch.randn(2, 4), mask=torch.ones(2).bool(), weight=torch.ones(2))
    soft = logit_term("soft", forward_kl, mask=lambda batch: batch.mask)
    own = Term(
        "weighed",
        1.0,
        lambda logits, weight: (logits.square().mean(1) * weight).mean(),
        lambda student, teacher, labels: [(student.logits, student.batch.weight)],
    )
    with pytest.raises(ValueError, match="has weights and its terms read a mask alone"):
        Distiller(nn.Linear(4, 4), nn.Linear(4, 4), [soft]).compute(tokens)
    assert Distiller(nn.Linear(4, 4), nn.Linear(4, 4), [soft, own]).compute(tokens).total > 0


def test_an_adaptor_of_inputs_is_of_no_use_to_stored_outputs(tmp_path):
    teacher, inputs = nn.Linear(4, 3), torch.randn(5, 4)
    stored = cache_teacher(teacher, inputs, tmp_path, progress=False)
    with pytest.raises(ValueError, match="teacher_input is for a teacher that runs"):
        Distiller(nn.Linear(4, 3), stored, teacher_input=lambda given: given / 2)


def test_a_model_that_does_more_on_train_and_eval_is_put_back_as_it_was():
    class Merging(nn.Linear):
        """As LoRA: in eval() its two weights are one, and training needs both."""

        merged = False

        def train(self, mode: bool = True):
            self.merged = not mode
            return super().train(mode)

    model = nn.Sequential(Merging(2, 2), nn.Dropout().eval())
    evaluate(model, (torch.zeros(3, 2), torch.zeros(3).long()))
    assert not model[0].merged and model[0].training and not model[1].training
