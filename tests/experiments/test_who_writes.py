from dataclasses import replace

import pytest
import torch

from kdlearn.data import Batch
from kdlearn.data.walk import FIRST_MOVE, REACH, STOP, arrived, walk_goals
from kdlearn.experiments import who_writes as experiment
from kdlearn.training import generate, next_tokens

UP, DOWN, LEFT, RIGHT = range(FIRST_MOVE, STOP)


def test_the_guide_gives_all_good_moves_alike_and_stops_at_the_goal():
    tokens = torch.tensor([[REACH + 1, REACH + 1, UP, RIGHT]])
    probs = experiment.Guide()(tokens).exp()
    torch.testing.assert_close(probs.sum(-1), torch.ones(1, 4))
    at_start, after_up, at_goal = probs[0, 1:]
    assert at_start[UP] == at_start[RIGHT] > 0.49
    assert after_up[RIGHT] > 0.99 and at_goal[STOP] > 0.99


def test_who_follows_the_guide_arrives_from_anywhere():
    goals = walk_goals(200, seed=3)
    astray = torch.cat([goals, torch.randint(UP, STOP, (200, 3))], dim=1)
    text = generate(experiment.Guide(), astray, 13, temperature=0, stop=STOP).tokens
    assert arrived(text).all()


def test_a_reward_that_all_walks_get_teaches_nothing():
    walks = next_tokens(
        torch.tensor([[REACH, REACH + 1, UP, STOP]] * 2),
        torch.tensor([[False, False, True, True]] * 2),
    )
    logits = torch.randn(2, 3, 14, requires_grad=True)
    experiment.reward_loss(logits, walks).backward()
    assert logits.grad.abs().max() == 0


def test_a_reward_raises_the_moves_of_the_walk_that_arrived():
    walks = Batch(
        torch.tensor([[REACH, REACH + 1, UP], [REACH, REACH + 1, DOWN]]),
        torch.tensor([[-100, UP, STOP], [-100, DOWN, STOP]]),
    )
    logits = torch.zeros(2, 3, 14, requires_grad=True)
    experiment.reward_loss(logits, walks).backward()
    right = torch.softmax(torch.zeros(14), 0)
    right[UP] -= 1
    torch.testing.assert_close(logits.grad[0, 1], 0.5 * right / 4)
    assert logits.grad[1, 1, DOWN] > 0 and (logits.grad[:, 0] == 0).all()


@pytest.mark.parametrize("method", ["off-policy forward KL", "reward"])
def test_a_student_follows_from_its_seed(method):
    recipe = replace(experiment.RECIPE, walks=8, warm_steps=1, steps=3)
    one, again, other = (
        experiment.trained(experiment.METHODS[method], recipe=recipe, seed=seed)
        for seed in (1, 1, 2)
    )
    assert torch.equal(one.token.weight, again.token.weight)
    assert not torch.equal(one.token.weight, other.token.weight)
