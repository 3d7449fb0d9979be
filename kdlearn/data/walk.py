"""Walks to a goal: a task in which a wrong move can be made good, if one has learned how."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn.core.checks import check_whole
from kdlearn.core.randomness import generator_of

REACH, MOVES, STEPS = 4, 4, 16
FIRST_MOVE = 2 * REACH + 1
STOP = FIRST_MOVE + MOVES
SYMBOLS = STOP + 1
PROMPT = 2
"""A prompt is two tokens: the goal's x and y, each from -4 (token 0) to 4 (token 8)."""
_STEPS = torch.tensor([[0, 1], [0, -1], [-1, 0], [1, 0]])


@dataclass(frozen=True, eq=False)
class Walks:
    """Walks from (0, 0) to goals.

    Attributes:
        tokens: int64, shape (N, 18): goal x, goal y, then 16 of the moves up (9), down (10), left
            (11), right (12) and STOP (13); after a STOP there are only STOPs.
        mask: bool, shape (N, 18): True where a token is to be learned, up to the first STOP: not
            the goal, nor moves made at random.
    """

    tokens: Tensor
    mask: Tensor

    def __len__(self) -> int:
        """Return the number of walks."""
        return len(self.tokens)


def walk_goals(goals: int, *, seed: int = 0) -> Tensor:
    """Draw prompts: goals in a square of 9 x 9, shape (N, 2).

    Args:
        goals: how many.
        seed: which draws; same seed, same tensor.

    Raises:
        ValueError: ``goals`` is smaller than 1.

    Example:
        >>> walk_goals(3).shape
        torch.Size([3, 2])
    """
    check_whole(goals, "goals")
    generator = generator_of(seed)
    return torch.randint(FIRST_MOVE, (goals, PROMPT), generator=generator)


def shortest_walks(walks: int, *, detour: int = 0, seed: int = 0) -> Walks:
    """Draw goals and a random shortest way to each, after a random detour.

    Args:
        walks: how many.
        detour: each walk begins with 0 to so many random moves, which are not to be learned: what
            comes after them shows how to go on from anywhere. Up to 3 leave time to come back from
            everywhere; a walk that has none left does not stop.
        seed: which data set; same seed, same tensors.

    Raises:
        ValueError: ``walks`` is smaller than 1, or ``detour`` is negative or a whole walk.

    Example:
        >>> walks = shortest_walks(100, detour=2)
        >>> bool(arrived(walks.tokens).all())
        True
    """
    goals = walk_goals(walks, seed=seed)
    if check_whole(detour, "detour", least=0) >= STEPS:
        raise ValueError(f"detour is {detour}: a walk has {STEPS} steps in all, take fewer.")
    generator = generator_of(seed, part=2**32)
    at_random = torch.randint(detour + 1, (walks,), generator=generator)
    rest = goals - REACH
    done = torch.zeros(walks, dtype=torch.bool)
    written = []
    for step in range(STEPS):
        good = _good_moves(rest)[:, :MOVES].float()
        done = done | ((good.sum(dim=1) == 0) & (at_random <= step))
        weights = torch.where((done | (at_random > step))[:, None], 1.0, good)
        move = torch.multinomial(weights, 1, generator=generator).squeeze(1)
        written.append(torch.where(done, STOP, move + FIRST_MOVE))
        rest = rest - torch.where(done[:, None], 0, _STEPS[move])
    tokens = torch.cat([goals, torch.stack(written, dim=1)], dim=1)
    place = torch.arange(STEPS)
    learned = _up_to_stop(tokens[:, PROMPT:]) & (place >= at_random[:, None])
    return Walks(tokens, torch.cat([torch.zeros(walks, PROMPT).bool(), learned], dim=1))


def arrived(tokens: Tensor) -> Tensor:
    """Tell which walks (N, L) stop, and stop at the goal.

    Example:
        >>> arrived(torch.tensor([[4, 5, 9, 13], [4, 5, 13, 13], [4, 5, 9, 9]]))
        tensor([ True, False, False])
    """
    moves = tokens[:, PROMPT:]
    first = (moves == STOP).float().argmax(dim=1, keepdim=True)
    rest = _rest(tokens).gather(1, first[..., None].expand(-1, -1, 2)).squeeze(1)
    return (moves == STOP).any(dim=1) & (rest == 0).all(dim=1)


def wrong_moves(tokens: Tensor) -> Tensor:
    """Tell which tokens after the goal, (N, L - 2), do not bring it nearer, up to the first STOP.

    A STOP is wrong anywhere but at the goal, and there everything else is.

    Example:
        >>> wrong_moves(torch.tensor([[4, 5, 10, 9, 9, 13, 13]]))
        tensor([[ True, False, False, False, False]])
    """
    moves = tokens[:, PROMPT:]
    chosen = (moves - FIRST_MOVE).clamp(0, MOVES)[..., None]
    good = _good_moves(_rest(tokens)).gather(-1, chosen).squeeze(-1) & (moves >= FIRST_MOVE)
    return ~good & _up_to_stop(moves)


def good_moves(tokens: Tensor) -> Tensor:
    """Tell which of up, down, left, right and STOP bring the goal nearer, or end there.

    Args:
        tokens: the goal and the moves so far, shape (N, L), at least the goal.

    Returns:
        bool, shape (N, L - 1, 5): before each move, and, as the last, before the one to come.

    Example:
        >>> good_moves(torch.tensor([[4, 5, 9]]))[0].tolist()
        [[True, False, False, False, False], [False, False, False, False, True]]
    """
    return _good_moves(_rest(F.pad(tokens, (0, 1))))


def _rest(tokens: Tensor) -> Tensor:
    """The way that is left before each token after the prompt, (N, L - 2, 2)."""
    moves = tokens[:, PROMPT:]
    is_move = (moves >= FIRST_MOVE) & (moves < STOP)
    steps = _STEPS.to(moves.device)[(moves - FIRST_MOVE).clamp(0, MOVES - 1)]
    made = (steps * is_move[..., None]).cumsum(dim=1)
    before = torch.cat([torch.zeros_like(made[:, :1]), made[:, :-1]], dim=1)
    return (tokens[:, :PROMPT] - REACH)[:, None] - before


def _good_moves(rest: Tensor) -> Tensor:
    """Which of up, down, left, right and STOP are right where so much of the way is left."""
    x, y = rest.unbind(-1)
    return torch.stack([y > 0, y < 0, x < 0, x > 0, (x == 0) & (y == 0)], dim=-1)


def _up_to_stop(moves: Tensor) -> Tensor:
    stopped = (moves == STOP).long()
    return stopped.cumsum(dim=1) - stopped == 0
