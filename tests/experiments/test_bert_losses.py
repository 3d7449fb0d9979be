from dataclasses import replace

import pytest
import torch
from torch import nn

from kdlearn.data import associative_recall
from kdlearn.experiments.bert_losses import (
    METHODS,
    RECIPE,
    Method,
    attention_term,
    gaze,
    look_inside,
    relation_term,
    start_student,
    working_layers,
)
from kdlearn.models import TinyTransformer

DATA = associative_recall(6, pairs=4, keys=8, values=8, seed=0)


class Fixed(nn.Module):
    """Scores that look at given places, whatever the tokens are."""

    causal = True

    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, query, key, mask=None):
        return self.scores


def model(layers=3):
    torch.manual_seed(0)
    return TinyTransformer(symbols=16, length=16, width=8, layers=layers).eval()


def looking(places):
    scores = torch.full((6, 2, 16, 16), -9.0)
    scores.scatter_(3, places[:, None, :, None].expand(6, 2, -1, -1), 9.0)
    return Fixed(scores)


@pytest.mark.parametrize(("first", "second"), [(0, 1), (0, 2), (1, 2)])
def test_the_working_layers_are_those_that_look_at_the_key_before_and_then_at_the_answer(
    first, second
):
    teacher = model()
    itself = torch.arange(16).expand(6, -1)
    for layer in range(3):
        teacher.layers[layer].attention.scores = looking(itself)
    teacher.layers[first].attention.scores = looking((itself - 1).clamp(min=0))
    answers = itself.clone()
    answers[:, DATA.queries] = DATA.sources
    teacher.layers[second].attention.scores = looking(answers)
    assert working_layers(teacher, DATA) == (first, second)


def test_a_student_of_all_layers_copied_is_the_teacher():
    teacher = model(layers=2)
    method = Method(copied=True, wide=True, teacher_layers=(0, 1))
    recipe = replace(RECIPE, teacher_width=8)
    for name in ("token", "position"):  # the student's table is for the task's 32 symbols
        table = nn.Embedding(32, 8)
        table.weight.data[:16] = getattr(teacher, name).weight.data
        setattr(teacher, name, table)
    teacher.classifier = nn.Linear(8, 32)
    student = start_student(method, teacher, recipe, seed=0)
    assert torch.equal(student(DATA.tokens), teacher(DATA.tokens))


@pytest.mark.parametrize("kind", ["scores", "maps", "mean"])
def test_attention_of_oneself_is_no_distance_and_that_of_another_sequence_is(kind):
    own = look_inside(model(), DATA, DATA.tokens)
    order = torch.arange(16)
    near = Method(attention=kind, teacher_layers=(0, 1))
    far = replace(near, maps="other")
    assert attention_term(near, own, own, order).item() == pytest.approx(0, abs=1e-9)
    assert attention_term(far, own, own, order) > 1e-6
    permuted = replace(near, maps="permuted")
    assert attention_term(permuted, own, own, order).item() == pytest.approx(0, abs=1e-9)
    assert attention_term(permuted, own, own, order.roll(1)) > 1e-3


def test_relations_with_oneself_are_no_distance_and_with_another_layer_they_are():
    own = look_inside(model(), DATA, DATA.tokens)
    same = Method(relations="qkv", teacher_layers=(0, 2))
    assert relation_term(same, own, own).item() == pytest.approx(0, abs=1e-9)
    assert relation_term(replace(same, teacher_layers=(0, 1)), own, own) > 1e-6


def test_a_model_that_looks_at_the_answers_has_all_its_gaze_there():
    seeing = model()
    places = torch.arange(16).repeat(6, 1)
    places[:, DATA.queries] = DATA.sources
    seeing.layers[2].attention.scores = looking(places)
    assert gaze(seeing, DATA) == pytest.approx(100, abs=0.1)


def test_each_method_names_its_layers_or_leaves_them_to_the_teacher():
    for method in METHODS.values():
        assert method.teacher_layers is None or method.teacher_layers[0] < method.teacher_layers[1]
