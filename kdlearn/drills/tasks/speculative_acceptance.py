"""Drill: which drafted tokens a target model keeps, and what the next one is drawn from."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def verify_draft(
    target: Tensor, draft: Tensor, tokens: Tensor, uniforms: Tensor
) -> tuple[int, Tensor]:
    """Return how many drafted tokens are kept, and the probabilities that the next is drawn from.

    What is written that way has exactly the target's distribution.
    target: probabilities, shape (G + 1, V): row i is the target's for drafted token i, the last one
    for the token after them all. draft: probabilities, shape (G, V), that the tokens were drawn
    from. tokens: torch.int64, shape (G,).
    uniforms: shape (G,), one number from [0, 1), drawn evenly, to decide about each token: kept if
    it is below a threshold. From the first token that is not kept, none is.
    The probabilities returned: shape (V,), sum 1.
    """
    place = torch.arange(len(tokens))
    ratios = target[place, tokens] / draft[place, tokens]
    kept = int((uniforms < ratios).long().cumprod(0).sum())
    if kept == len(tokens):
        return kept, target[kept]
    left = (target[kept] - draft[kept]).clamp_min(0)
    return kept, left / left.sum()


def observe(case: Case, result: tuple[int, Tensor]) -> dict[str, object]:
    """What is kept and what comes next."""
    return {"kept": result[0], "probabilities": result[1]}


def _case(generator: Generator, drafted: int, vocabulary: int, kept: int) -> Case:
    """A case of which it is known how many tokens are kept; some of them are luckier than sure."""
    target = draws.normal(generator, drafted + 1, vocabulary, scale=1.3).softmax(1)
    draft = draws.normal(generator, drafted, vocabulary, scale=1.3).softmax(1)
    tokens = torch.multinomial(draft, 1, generator=generator).squeeze(1)
    if kept < drafted:
        tokens[kept] = (draft - target[:-1])[kept].argmax()
    place = torch.arange(drafted)
    ratios = (target[place, tokens] / draft[place, tokens]).clamp(max=1)
    chance = torch.rand(drafted, generator=generator, dtype=torch.float64)
    uniforms = torch.where(place < kept, chance * ratios, chance)
    if kept < drafted:
        uniforms[kept] = ratios[kept] + chance[kept] * (1 - ratios[kept])
    return {"target": target, "draft": draft, "tokens": tokens, "uniforms": uniforms}


def example() -> Case:
    """Two drafted tokens of three; the first is kept, the second is not."""
    target = torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]).double()
    draft = torch.tensor([[0.75, 0.125, 0.125], [0.6, 0.3, 0.1]]).double()
    return {
        "target": target,
        "draft": draft,
        "tokens": torch.tensor([0, 0]),
        "uniforms": torch.tensor([0.6, 0.5], dtype=torch.float64),
    }


def cases(generator: Generator) -> list[Case]:
    """All numbers of tokens kept, none and all included."""
    return [
        _case(generator, *sizes)
        for sizes in ((5, 6, 2), (4, 9, 4), (3, 5, 0), (5, 7, 4), (4, 4, 1), (6, 5, 6), (4, 8, 3))
    ]


def edges() -> list[Edge]:
    """A draft like its target, a token that the target never says, one token, none of it kept."""
    case = example()
    target, draft = case["target"], case["draft"]
    never = target.clone()
    never[0] = target.new_tensor([0.0, 0.5, 0.5])
    return [
        Edge(
            "a draft that equals its target",
            case | {"draft": target[:-1].clone()},
            "Every token is kept there, and nothing is left of the difference.",
        ),
        Edge(
            "a token that the target never says, and a draw of 0",
            case | {"target": never, "uniforms": torch.zeros_like(case["uniforms"])},
            "Below the threshold, not at it: the smallest draw is 0 itself.",
        ),
        Edge(
            "one drafted token",
            {
                "target": target[:2],
                "draft": draft[:1],
                "tokens": case["tokens"][:1],
                "uniforms": case["uniforms"][:1],
            },
        ),
        Edge(
            "a token after the first that was not kept, which would be",
            case | {"uniforms": case["uniforms"].flip(0) + torch.tensor([0.4, -0.59])},
        ),
        Edge("float32", case | {"target": target.float(), "draft": draft.float()}),
    ]


def family(
    wrong: Wrong, target: Tensor, draft: Tensor, tokens: Tensor, uniforms: Tensor
) -> tuple[int, Tensor]:
    """The decision with its switches."""
    place, drafted = torch.arange(len(tokens)), len(tokens)
    p, q = target[place, tokens], draft[place, tokens]
    if "late-by-one" in wrong:
        p = target[place + 1, tokens]
    tests = {
        "inverted": uniforms < q / p,
        "target-alone": uniforms < p,
        "draft-alone": uniforms < q,
        "difference": uniforms < p - q,
        "without-chance": p >= q,
        "target-argmax": tokens == target[:-1].argmax(1),
        "at-the-threshold": uniforms <= p / q,
        "test-reversed": uniforms > p / q,
        "all-kept": torch.ones_like(tokens, dtype=torch.bool),
    }
    passed = next((tests[name] for name in tests if name in wrong), uniforms < p / q)
    kept = int(passed.long().cumprod(0).sum())
    if "passed-counted" in wrong:
        kept = int(passed.sum())
    counted = min(kept + 1, drafted) if "refused-counted" in wrong else kept
    row = min(kept, drafted - 1)
    here, there = target[row], draft[row]
    if kept == drafted:
        ends = {
            "bonus-from-draft": draft[-1],
            "bonus-row": target[-2],
            "bonus-corrected": _scaled((target[-2] - draft[-1]).clamp_min(0)),
        }
        return counted, next((ends[name] for name in ends if name in wrong), target[-1])
    others = torch.arange(len(here)) != tokens[row]
    made = {
        "from-the-target": lambda: here,
        "from-the-draft": lambda: there,
        "token-left-out": lambda: _scaled(here * others),
        "absolute-difference": lambda: _scaled((here - there).abs()),
        "negative-part": lambda: _scaled((there - here).clamp_min(0)),
        "not-normalized": lambda: (here - there).clamp_min(0),
        "softmax-of-difference": lambda: (here - there).softmax(0),
        "softmax-of-positive-part": lambda: (here - there).clamp_min(0).softmax(0),
        "not-cut": lambda: here - there,
        "row-after": lambda: target[row + 1],
    }
    right = _scaled((here - there).clamp_min(0))
    return counted, next((made[name]() for name in made if name in wrong), right)


def _scaled(weights: Tensor) -> Tensor:
    """Weights that sum to 1."""
    return weights / weights.sum()


drill = Drill(
    id="speculative-acceptance",
    title="Speculative decoding: keep or draw again",
    task=(
        "A small draft model has written $G$ tokens, and the target has scored them in one pass. "
        "Decide how many are kept, and what the next token is drawn from, so that the text has "
        "exactly the target's distribution. The random numbers are given."
    ),
    minutes=10,
    level="core",
    hints=(
        "Say the draft gives a token twice the probability that the target gives it. How often may "
        "it stay? And a token that the draft gives too rarely?",
        "Add up for one token how it can come about: drafted and kept, or drawn after a refusal. "
        "The sum must be the target's p. What is left for the second way?",
        "Three cases end differently: a refusal at the first, at a later one, and none at all. The "
        "target has one row more than the draft: for which of them?",
    ),
    explanation=(
        "O(GV). A token stays with probability min(1, p/q), so it comes about by way of the draft "
        "with q · min(1, p/q) = min(p, q). What is missing to p is max(p - q, 0), and that, scaled "
        "to 1, is what a refused token is drawn from anew: nothing of it goes to tokens that the "
        "draft gives too often. Drawing from the target instead gives those too much. A token is "
        "kept with probability sum of min(p, q) = 1 - TV(p, q), the total variation distance: so a "
        "draft is trained for TV, or distilled, not for its own perplexity. If all G stay, the "
        "target's last row gives one token for nothing. After a refusal the later ones answer to a "
        "prefix that does not exist any more. Draft and ratio must use the same q: same "
        "temperature, same top-p, same precision. The interviewer listens for: exactness and its "
        "two-line proof, 1 - TV, the free token. Sources: [Leviathan et al., ICML "
        "2023](cite:leviathan2023fast); [Chen et al., 2023](cite:chen2023accelerating)."
    ),
    reference=verify_draft,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # test
        - inverted: the ratio is upside down: draft over target keeps what the draft says too often.
          It is p of the target over q of the draft.
        - target-alone: a token is kept with the target's probability p: it was drawn with q before,
          so it would come about with q · p. The ratio p / q makes that p.
        - draft-alone: a token is kept with the draft's own probability: the target is not asked.
        - difference: the threshold is the difference of the probabilities, not their ratio.
        - without-chance: a token is kept when p is at least q, without a draw: what the draft says
          too often would never be kept, and should be with probability p / q.
        - target-argmax: a token is kept when it is the target's most probable one: that is right
          for greedy decoding, and changes the distribution of samples.
        - at-the-threshold: a draw of exactly 0 keeps a token that the target never says: below the
          threshold, not at it.
        - test-reversed: the comparison is the wrong way round: the tokens to refuse are kept.
        - all-kept: all tokens are kept: this is the draft's own text.
        - late-by-one: the target's rows are late by one: row i scores drafted token i, and the last
          row comes after them all.
        # count
        - passed-counted: tokens after the first refusal are counted: they were drafted for a prefix
          that does not exist any more. The count ends at the first refusal.
        - refused-counted: the refused token is counted: it is replaced by what is drawn anew.
        # drawn anew
        - from-the-target: after a refusal the next token is drawn from the target: with what was
          kept, tokens that the draft says too often come out too often. Draw from the positive part
          of target minus draft.
        - from-the-draft: after a refusal the next token is drawn from the draft.
        - token-left-out: after a refusal only the refused token is left out of the target: what is
          left over is the positive part of target minus draft.
        - absolute-difference: the absolute difference is taken: only what the target gives more
          than the draft is left over.
        - negative-part: draft minus target: those are the tokens that came out too often already.
        - not-normalized: the positive part of the difference is not divided by its sum.
        - softmax-of-difference: a softmax is taken of the difference: cut it at 0 and divide by its
          sum.
        - softmax-of-positive-part: a softmax is taken of the positive part: exp(0) is 1, so what is
          cut off comes back. Divide by the sum.
        - not-cut: the difference is not cut at 0: negative numbers are no probabilities.
        - row-after: after a refusal the next token is drawn from the row behind the refused one.
        # none refused
        - bonus-from-draft: if all are kept, the next token is drawn from the draft's last row: the
          target has a row for it, for nothing.
        - bonus-row: if all are kept, the next token is drawn from the target's row of the last
          drafted token: the one behind it is the last row.
        - bonus-corrected: if all are kept, nothing has to be made up for: the next token is drawn
          from the target's last row itself.
        """
    ),
    sizes=lambda case: {"G": len(case["tokens"]), "V": case["target"].shape[1]},
    observe=observe,
)
