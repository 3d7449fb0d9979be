"""Which loss trains the best draft of a language model, on real text?

The target is a GRU over characters that has read the docstrings of Python's own library; a draft
sees three characters. Drafts then write for the target in a real speculative loop. The text is that
of the Python that is running: another version has another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import OneCycleLR

from kdlearn.data import learn_pairs, python_docstrings
from kdlearn.experiments.common import Row, check, descend, seeded
from kdlearn.losses import cross_entropy, forward_kl, reverse_kl, total_variation
from kdlearn.models import RecurrentLM
from kdlearn.training import adamw, speculate

SEEN = 3
WARM = 16
"""Characters that the target reads before a draft is trained on what it says."""


@dataclass(frozen=True)
class Recipe:
    """The numbers; `dataclasses.replace` makes a shorter one.

    Attributes:
        target_steps: of the target, on 24 pieces of 64 characters each.
        pieces: of 80 characters, in which a draft learns, and a tenth of that to measure.
        hidden: units of the draft.
        draft_steps: of a draft, on 192 characters each.
        streams: texts that are written side by side.
        calls: of the target, for each.
        ahead: characters that the draft writes before the target looks.
    """

    target_steps: int = 350
    pieces: int = 400
    hidden: int = 6
    draft_steps: int = 500
    streams: int = 64
    calls: int = 24
    ahead: int = 4


class Draft(nn.Module):
    """A small network that sees the last three characters.

    Shape:
        Tokens (B, L) to logits (B, L, symbols); before the first, it sees token 0.

    Example:
        >>> Draft(symbols=9, hidden=6)(torch.zeros(2, 5, dtype=torch.long)).shape
        torch.Size([2, 5, 9])
    """

    def __init__(self, symbols: int, hidden: int) -> None:
        super().__init__()
        self.token = nn.Embedding(symbols, 12)
        self.hidden = nn.Linear(12 * SEEN, hidden)
        self.classifier = nn.Linear(hidden, symbols)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next character at each place."""
        windows = F.pad(tokens, (SEEN - 1, 0)).unfold(1, SEEN, 1)
        return self.classifier(self.hidden(self.token(windows).flatten(2)).tanh())


Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
METHODS: dict[str, Loss] = {
    "text": lambda draft, target, text: cross_entropy(draft, text),
    "forward KL": lambda draft, target, text: forward_kl(draft, target),
    "reverse KL": lambda draft, target, text: reverse_kl(draft, target),
    "total variation": lambda draft, target, text: total_variation(draft, target),
}
RECIPE = Recipe()
COLUMNS = ("acceptance", "counted", "tokens_per_call", "kl_to_teacher")


@dataclass(frozen=True)
class Text:
    """The text as characters' numbers.

    Attributes:
        train: of some fifty modules.
        held_out: of others.
        characters: what the numbers stand for.
    """

    train: Tensor
    held_out: Tensor
    characters: str

    @classmethod
    def read(cls) -> Text:
        """Read the docstrings of the Python that is running."""
        text = python_docstrings()
        tokenizer = learn_pairs(text.train + text.held_out, merges=0)
        train, held_out = map(tokenizer.encode, (text.train, text.held_out))
        return cls(train, held_out, tokenizer.alphabet)


def pieces_of(text: Tensor, count: int, length: int, generator: Generator) -> Tensor:
    """Cut pieces out of a text at random, (count, length)."""
    start = torch.randint(len(text) - length, (count,), generator=generator)
    return text[start[:, None] + torch.arange(length)]


def train_target(text: Text, *, recipe: Recipe = RECIPE, seed: int) -> RecurrentLM:
    """Train the language model that is to be made faster."""
    target = seeded(lambda: RecurrentLM(len(text.characters)), seed)
    optimizer = adamw(target.parameters())
    scheduler = OneCycleLR(optimizer, 1e-2, total_steps=recipe.target_steps)
    generator = Generator().manual_seed(seed)
    for _ in range(recipe.target_steps):
        tokens = pieces_of(text.train, 24, 65, generator)
        loss = cross_entropy(target(tokens[:, :-1]), tokens[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(target.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
    return target.eval()


@dataclass(frozen=True)
class Said:
    """What the target says in some pieces of text, behind their first characters.

    Attributes:
        windows: what a draft sees, (N, 3).
        target: the target's logits, (N, V).
        text: the character that stands there, (N,).
    """

    windows: Tensor
    target: Tensor
    text: Tensor

    @classmethod
    def of(cls, target: nn.Module, pieces: Tensor) -> Said:
        """Ask the target once, for all drafts."""
        with torch.no_grad():
            logits = target(pieces[:, :-1])[:, WARM:]
        windows = pieces[:, WARM + 1 - SEEN : -1].unfold(1, SEEN, 1)
        return cls(windows.flatten(0, 1), logits.flatten(0, 1), pieces[:, WARM + 1 :].flatten())


def train_draft(loss_of: Loss, said: Said, *, recipe: Recipe = RECIPE, seed: int) -> Draft:
    """Train a draft on what the target said."""
    draft = seeded(lambda: Draft(said.target.shape[1], recipe.hidden), seed)
    generator = Generator().manual_seed(seed)

    def next_loss() -> Tensor:
        rows = torch.randint(len(said.text), (192,), generator=generator)
        logits = draft(said.windows[rows])[:, -1]
        return loss_of(logits, said.target[rows], said.text[rows])

    losses = (next_loss() for _ in range(recipe.draft_steps))
    descend(
        draft.parameters(),
        losses,
        rate=3e-2,
        steps=recipe.draft_steps,
        weight_decay=0,
        warm_up=0.1,
    )
    return draft.eval()


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`.

    ``acceptance`` is 1 - TV on held-out text, in per cent; ``counted`` the share of tested
    characters that the loop accepted, and ``tokens_per_call`` what it wrote for each call of the
    target; ``kl_to_teacher`` is KL(target || draft) on held-out text, in nats. The teacher's row is
    the target as its own draft.
    """
    methods = list(methods)
    check(METHODS, methods, on)
    text = Text.read()
    half = len(text.held_out) // 2
    held_out = text.held_out[:half] if on == "validation" else text.held_out[half:]
    target = train_target(text, recipe=recipe, seed=seed)
    generator = Generator().manual_seed(seed)
    learned = Said.of(target, pieces_of(text.train, recipe.pieces, 80, generator))
    measured = Said.of(target, pieces_of(held_out, recipe.pieces // 10 + 1, 80, generator))
    prompts = pieces_of(held_out, recipe.streams, WARM, generator)

    def row(name: str, draft: nn.Module, logits: Tensor) -> Row:
        coins = Generator().manual_seed(seed)
        done = speculate(target, draft, prompts, recipe.calls, ahead=recipe.ahead, generator=coins)
        return {
            "seed": seed,
            "method": name,
            "acceptance": 100 * (1 - total_variation(logits, measured.target).item()),
            "counted": 100 * done.accepted / done.proposed,
            "tokens_per_call": done.mask.sum().item() / (recipe.calls * recipe.streams),
            "kl_to_teacher": forward_kl(logits, measured.target).item(),
        }

    yield row("teacher", target, measured.target)
    for name in methods:
        draft = train_draft(METHODS[name], learned, recipe=recipe, seed=seed)
        with torch.no_grad():
            logits = draft(measured.windows)[:, -1]
        yield row(name, draft, logits)
