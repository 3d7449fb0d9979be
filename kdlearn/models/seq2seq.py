"""An encoder and a decoder of one recurrent layer each, joined by additive attention."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from kdlearn.core.checks import check_choice, check_sizes
from kdlearn.core.inputs import map_tensors


class AdditiveAttention(nn.Module):
    r"""Score each encoder state against the decoder's state with a small network.

    .. math:: e_{ij} = v^\top \tanh(W s_i + U h_j), \qquad
        a_{ij} = \frac{\exp e_{ij}}{\sum_k \exp e_{ik}}

    Args:
        query: size of the decoder's states s.
        memory: size of the encoder's states h.
        hidden: size of the space in which they are compared.

    Source: D. Bahdanau, K. Cho and Y. Bengio, Neural Machine Translation by Jointly Learning to
        Align and Translate, ICLR 2015, section 3.1 and appendix A.1.2.
    """

    def __init__(self, query: int, memory: int, hidden: int) -> None:
        """Make W, U and v."""
        super().__init__()
        self.from_query = nn.Linear(query, hidden, bias=False)
        self.from_memory = nn.Linear(memory, hidden, bias=False)
        self.score = nn.Linear(hidden, 1, bias=False)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        """Return the weights (B, L) of one query (B, Q) over a memory (B, L, M)."""
        hidden = torch.tanh(self.from_query(query)[:, None] + self.from_memory(memory))
        return self.score(hidden).squeeze(-1).softmax(dim=-1)


class Seq2Seq(nn.Module):
    """Read a sequence in both directions, then write another one while looking back at it.

    Modules to tap: ``encoder`` (its first output holds the states), ``attention`` (called once an
    output symbol), ``classifier``.

    Args:
        symbols: number of different symbols; token ``symbols`` starts the output.
        embedding: size of a symbol's vector.
        hidden: size of the decoder's state; each direction of the encoder has half of it.
        cell: "gru", or "lstm", of both; attention is asked with the LSTM's output, not its memory.

    Raises:
        ValueError: a size is smaller than 1, ``hidden`` is odd, or there is no such cell.

    Example:
        >>> model = Seq2Seq(symbols=20)
        >>> source = torch.randint(20, (3, 8))
        >>> logits, weights = model(source, target=source)
        >>> logits.shape, weights.shape
        (torch.Size([3, 8, 20]), torch.Size([3, 8, 8]))
    """

    def __init__(
        self,
        symbols: int = 20,
        embedding: int = 32,
        hidden: int = 64,
        cell: Literal["gru", "lstm"] = "gru",
    ) -> None:
        """Make the layers; the weights follow from torch's current seed."""
        super().__init__()
        check_sizes(symbols=symbols, embedding=embedding, hidden=hidden)
        check_choice(cell, "cell", ("gru", "lstm"))
        if hidden % 2:
            raise ValueError(f"hidden must be even, one half a direction, got {hidden}.")
        self.symbols = symbols
        self.read = nn.Embedding(symbols, embedding)
        layer, step = (nn.LSTM, nn.LSTMCell) if cell == "lstm" else (nn.GRU, nn.GRUCell)
        self.encoder = layer(embedding, hidden // 2, batch_first=True, bidirectional=True)
        self.attention = AdditiveAttention(hidden, hidden, hidden)
        self.write = nn.Embedding(symbols + 1, embedding)
        self.decoder = step(embedding + hidden, hidden)
        self.classifier = nn.Linear(2 * hidden, symbols)

    def forward(
        self, source: Tensor, target: Tensor | None = None, *, length: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """Translate.

        Args:
            source: tokens (B, L).
            target: tokens (B, M) to learn from: each step then sees the right symbol before it
                ("teacher forcing", no relation to a teacher network). Without it each step sees
                the symbol that the model itself found most likely.
            length: M where there is no target; by default L.

        Returns:
            Logits (B, M, symbols) and attention weights (B, M, L), whose rows sum to 1.
        """
        states, last = self.encoder(self.read(source))
        state: Any = map_tensors(lambda both: both.transpose(0, 1).flatten(1), last)
        steps = target.shape[1] if target is not None else length or source.shape[1]
        symbol = source.new_full((len(source),), self.symbols)
        logits, weights = [], []
        for step in range(steps):
            attended = self.attention(_output(state), states)
            context = torch.einsum("bl,blh->bh", attended, states)
            state = self.decoder(torch.cat([self.write(symbol), context], dim=1), state)
            logits.append(self.classifier(torch.cat([_output(state), context], dim=1)))
            weights.append(attended)
            symbol = target[:, step] if target is not None else logits[-1].argmax(dim=1)
        return torch.stack(logits, dim=1), torch.stack(weights, dim=1)


def _output(state: Any) -> Tensor:
    """What a cell says: an LSTM has its memory beside it."""
    return state[0] if isinstance(state, tuple) else state
