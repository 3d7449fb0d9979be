from dataclasses import replace

import torch

from kdlearn.experiments import text_drafts as experiment
from kdlearn.models import RecurrentLM


def test_a_draft_sees_the_last_three_characters_only():
    draft = experiment.Draft(symbols=9, hidden=5).eval()
    text = torch.randint(9, (2, 12))
    changed = text.clone()
    changed[:, :5] = (changed[:, :5] + 1) % 9
    logits, others = draft(text), draft(changed)
    assert torch.equal(logits[:, 7:], others[:, 7:])
    assert not torch.equal(logits[:, 6], others[:, 6])


def test_a_draft_learns_at_the_places_at_which_the_target_speaks():
    target, draft = RecurrentLM(9, hidden=8), experiment.Draft(9, 5)
    pieces = torch.randint(9, (4, 30))
    said = experiment.Said.of(target, pieces)
    with torch.no_grad():
        whole = target(pieces)[:, experiment.WARM : -1]
        seen = draft(pieces)[:, experiment.WARM : -1]
        torch.testing.assert_close(said.target, whole.flatten(0, 1))
        torch.testing.assert_close(draft(said.windows)[:, -1], seen.flatten(0, 1))
    assert torch.equal(said.text, pieces[:, experiment.WARM + 1 :].flatten())


def test_a_target_that_is_its_own_draft_is_always_believed():
    recipe = replace(
        experiment.RECIPE, target_steps=2, draft_steps=2, pieces=20, streams=3, calls=2
    )
    row = next(experiment.run_seed(0, recipe=recipe))
    assert row["counted"] == 100 and row["tokens_per_call"] == recipe.ahead + 1
    assert abs(row["acceptance"] - 100) < 1e-4
