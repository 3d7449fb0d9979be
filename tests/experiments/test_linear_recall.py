from dataclasses import replace

import torch

from kdlearn.data import associative_recall
from kdlearn.distill import Taps
from kdlearn.experiments import linear_recall
from kdlearn.experiments.linear_recall import METHODS, RECIPE, map_loss, queries_and_keys, scores_of
from kdlearn.models import TinyTransformer, linearized

SHORT = replace(RECIPE, teacher_accuracy=0.0, most_steps=2, student_steps=3, exam=10)
BATCH = associative_recall(4, seed=1)


def make(features="hedgehog"):
    torch.manual_seed(0)
    teacher = TinyTransformer(width=16)
    return teacher, linearized(teacher, features)


def test_queries_and_keys_are_those_of_the_models_own_maps():
    teacher, _ = make()
    names = ["layers.0.attention.weights", "layers.1.attention.weights"]
    with torch.no_grad(), Taps(teacher, names) as taps:
        teacher(BATCH.tokens)
    again = scores_of(teacher, queries_and_keys(teacher, BATCH.tokens))
    for name, scores in zip(names, again, strict=True):
        torch.testing.assert_close(scores.softmax(-1), taps[name])


def test_a_model_is_at_distance_0_from_its_own_maps_and_linear_attention_is_not():
    teacher, student = make()
    assert map_loss(teacher, teacher, BATCH).abs() < 1e-6
    assert map_loss(student, teacher, BATCH) > 1e-4


def test_learning_from_maps_moves_the_feature_maps_alone_and_reads_no_answer():
    teacher, student = make()
    before = {name: weight.clone() for name, weight in student.named_parameters()}

    def without_answers():
        while True:
            yield replace(BATCH, answers=None)

    linear_recall.learn_maps(student, teacher, SHORT, without_answers())
    moved = {n for n, w in student.named_parameters() if not torch.equal(w, before[n])}
    assert moved == {name for name in before if ".scores." in name}


def test_batches_are_new_and_follow_from_the_seed():
    first, again, other = (linear_recall.batches(2, seed) for seed in (3, 3, 4))
    seen = [next(first).tokens for _ in range(60)]
    assert all(torch.equal(tokens, next(again).tokens) for tokens in seen)
    assert len({tuple(tokens.flatten().tolist()) for tokens in seen}) == 60
    assert not torch.equal(next(other).tokens, seen[0])


def test_a_student_from_scratch_makes_the_teachers_steps():
    names = ["swapped in, 1 + ELU", "answers and every weight, hedgehog", "from scratch, hedgehog"]
    rows = {row["method"]: row for row in linear_recall.run_seed(0, recipe=SHORT, methods=names)}
    assert [row["steps"] for row in rows.values()] == [2, 0, 3, 2]
    assert "map_kl" not in rows["from scratch, hedgehog"]
    assert set(names) < set(METHODS)
