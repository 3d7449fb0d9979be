from dataclasses import replace

import pytest
import torch

from kdlearn.experiments import sparse_parity
from kdlearn.experiments.sparse_parity import RECIPE, Networks, signals, train_teacher

SHORT = replace(
    RECIPE, signs=8, support=2, teacher=32, student_steps=40, teacher_steps=40, checkpoints=4
)
SHORT = replace(SHORT, held_out=500, batch_size=16)
CUBE = 2.0 * torch.cartesian_prod(*[torch.arange(2)] * 6) - 1


def test_a_product_shows_nothing_of_its_factors_and_a_sum_does():
    product, total = CUBE[:, :3].prod(1), CUBE[:, :3].sum(1)
    assert signals(product, CUBE, 3) == (0.0, 0.0)
    inside, outside = signals(total, CUBE, 3)
    assert inside == pytest.approx(3**-0.5)
    assert outside == pytest.approx(0, abs=1e-6)


def test_networks_side_by_side_start_equal_and_are_a_layer_of_relus():
    networks = Networks(2, 6, 5, seed=3)
    first, second = networks(CUBE)
    assert torch.equal(first, second)
    w, b, v, c = (networks.parts[name][0] for name in "wbvc")
    torch.testing.assert_close(first, ((CUBE @ w + b).relu() @ v + c)[:, 0])


def test_a_path_has_its_checkpoints_and_the_finished_teacher_last():
    path = train_teacher(SHORT, seed=0)
    assert len(path) == SHORT.checkpoints
    first, last = path[0](CUBE[:, [0, 1, 2, 3, 4, 5, 0, 1]]), path[-1](CUBE[:, [0, 1] * 4])
    assert not torch.allclose(first, last, atol=1e-3)


def test_a_student_does_not_depend_on_who_is_trained_beside_it():
    together = {row["method"]: row for row in sparse_parity.run_seed(0, recipe=SHORT)}
    assert list(together) == ["teacher", *sparse_parity.METHODS]
    for name in ("labels", "checkpoints in order"):
        _, alone = sparse_parity.run_seed(0, recipe=SHORT, methods=[name])
        assert alone["accuracy"] == pytest.approx(together[name]["accuracy"], abs=0.5)


def test_two_factors_of_eight_are_found_by_a_teacher_and_by_its_student():
    easy = replace(SHORT, teacher_steps=600, student_steps=600, teacher_rate=0.01, batch_size=64)
    teacher, student = sparse_parity.run_seed(0, recipe=easy, methods=["final teacher"])
    assert teacher["accuracy"] > 95
    assert student["accuracy"] > 95
    assert student["steps_to_90"] < 600
