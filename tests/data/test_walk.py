from collections import Counter

import pytest
import torch

from kdlearn.data.walk import (
    FIRST_MOVE,
    PROMPT,
    REACH,
    STOP,
    arrived,
    good_moves,
    shortest_walks,
    walk_goals,
    wrong_moves,
)

UP, DOWN, LEFT, RIGHT = range(FIRST_MOVE, STOP)


def walk(x, y, *moves):
    return torch.tensor([[x + REACH, y + REACH, *moves]])


def by_hand(row):
    x, y = row[0] - REACH, row[1] - REACH
    for token in row[2:]:
        if token == STOP:
            return (x, y) == (0, 0)
        x, y = x - (token == RIGHT) + (token == LEFT), y - (token == UP) + (token == DOWN)
    return False


def test_shortest_walks_arrive_in_as_many_moves_as_the_goal_is_far():
    tokens = shortest_walks(300, seed=1).tokens
    far = (tokens[:, :PROMPT] - REACH).abs().sum(1)
    assert torch.equal((tokens[:, PROMPT:] != STOP).sum(1), far)
    assert arrived(tokens).all() and not wrong_moves(tokens).any()
    assert all(map(by_hand, tokens.tolist()))


def test_all_shortest_ways_are_taken():
    tokens = shortest_walks(20_000, seed=2).tokens
    ways = tokens[(tokens[:, 0] == REACH + 1) & (tokens[:, 1] == REACH + 1)][:, 2:4]
    counts = Counter(map(tuple, ways.tolist()))
    assert set(counts) == {(UP, RIGHT), (RIGHT, UP)}
    assert abs(counts[UP, RIGHT] / counts.total() - 0.5) < 0.15


def test_after_a_detour_they_arrive_too_and_its_moves_are_not_learned():
    walks = shortest_walks(500, detour=3, seed=3)
    assert arrived(walks.tokens).all()
    learned = walks.mask[:, PROMPT:]
    assert (~learned[:, :3]).any() and not (wrong_moves(walks.tokens) & learned).any()
    assert wrong_moves(walks.tokens).any()
    stops = walks.tokens[:, PROMPT:] == STOP
    assert torch.equal((stops & learned).sum(1), torch.ones(500, dtype=torch.int64))


def test_who_stops_elsewhere_or_never_has_not_arrived():
    assert arrived(walk(1, -1, RIGHT, DOWN, STOP)).item()
    assert not arrived(walk(1, -1, RIGHT, STOP, STOP)).item()
    assert not arrived(walk(1, -1, RIGHT, DOWN, UP)).item()
    assert arrived(walk(0, 0, LEFT, RIGHT, STOP)).item()


def test_a_wrong_move_is_one_that_does_not_shorten_the_way():
    assert wrong_moves(walk(1, 0, LEFT, RIGHT, RIGHT, STOP)).tolist() == [[True] + 3 * [False]]
    assert wrong_moves(walk(1, 0, STOP, RIGHT)).tolist() == [[True, False]]
    assert wrong_moves(walk(0, 0, UP, 3)).tolist() == [[True, True]]


def test_goals_come_from_the_whole_square_and_the_seed_decides():
    state = torch.get_rng_state()
    goals = walk_goals(2_000, seed=4)
    assert len(goals.unique(dim=0)) == 81
    assert torch.equal(goals, walk_goals(2_000, seed=4))
    assert not torch.equal(shortest_walks(50).tokens, shortest_walks(50, seed=1).tokens)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_long_detour_may_leave_no_time_to_come_back():
    assert not arrived(shortest_walks(2_000, detour=12).tokens).all()
    with pytest.raises(ValueError, match="detour is 16: a walk has 16 steps in all"):
        shortest_walks(3, detour=16)


def test_good_moves_are_those_that_are_not_wrong():
    tokens = shortest_walks(200, detour=3, seed=5).tokens
    good = good_moves(tokens)[:, :-1]
    places = (tokens[:, PROMPT:] - FIRST_MOVE)[..., None]
    taken = good.gather(2, places).squeeze(2)
    before_stop = (tokens[:, PROMPT:] == STOP).long().cumsum(1) - (
        tokens[:, PROMPT:] == STOP
    ).long() == 0
    assert torch.equal(~taken & before_stop, wrong_moves(tokens))


def test_good_moves_tell_of_the_move_to_come():
    assert good_moves(walk(1, -1, RIGHT))[0].tolist() == [
        [False, True, False, True, False],
        [False, True, False, False, False],
    ]
    assert good_moves(walk(0, 0))[0].tolist() == [[False] * 4 + [True]]
