"""Losses inside transformers against loops in numpy, masks, and layer maps."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kdlearn import losses

few = settings(max_examples=15, deadline=None)
SCORE_LOSSES = ["attention_score_loss", "attention_distribution_loss", "vit_attention_loss"]


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@st.composite
def padded_scores(draw):
    batch, heads, length = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    shape = (2, batch, heads, length, length)
    student, teacher = 2 * torch.randn(shape, dtype=torch.float64, generator=generator)
    lengths = [draw(st.integers(1, length)) for _ in range(batch)]
    mask = torch.arange(length) < torch.tensor(lengths)[:, None]
    return student, teacher, mask, lengths


@given(padded_scores())
@few
def test_scores_are_compared_over_pairs_of_tokens_that_count(scores):
    student, teacher, mask, lengths = scores
    gaps = [(student - teacher)[b, :, :n, :n].numpy().ravel() ** 2 for b, n in enumerate(lengths)]
    loss = losses.attention_score_loss(student, teacher, mask=mask)
    assert loss.item() == pytest.approx(np.concatenate(gaps).mean())
    everywhere = ((student - teacher).numpy() ** 2).mean()
    assert losses.attention_score_loss(student, teacher).item() == pytest.approx(everywhere)


def test_an_additive_mask_is_no_attention():
    student, teacher = torch.randn(2, 1, 1, 2, 2, dtype=torch.float64)
    hidden_s, hidden_t = student.clone(), teacher.clone()
    hidden_s[..., 1], hidden_t[..., 1] = -100.0, -torch.inf
    expected = (student - teacher)[..., 0].square().sum() / 4
    torch.testing.assert_close(losses.attention_score_loss(hidden_s, hidden_t), expected)
    hidden_s[..., 1], hidden_t[..., 1] = -99.0, 0
    assert losses.attention_score_loss(hidden_s, hidden_t) > 99**2 / 2


@given(padded_scores())
@few
def test_distributions_are_those_of_cropped_sequences(scores):
    student, teacher, mask, lengths = scores
    rows = []
    for b, n in enumerate(lengths):
        p, q = (softmax(side[b, :, :n, :n].numpy()) for side in (teacher, student))
        rows.append((p * np.log(p / q)).sum(-1).ravel())
    loss = losses.attention_distribution_loss(student, teacher, mask=mask)
    assert loss.item() == pytest.approx(np.concatenate(rows).mean(), abs=1e-12)


@given(padded_scores())
@few
def test_vit_attention_is_a_cross_entropy_of_rows(scores):
    student, teacher, _, _ = scores
    p, q = (softmax(side.numpy()) for side in (teacher, student))
    loss = losses.vit_attention_loss(student, teacher)
    assert loss.item() == pytest.approx(-(p * np.log(q)).sum(-1).mean())
    entropy = -(p * np.log(p)).sum(-1).mean()
    divergence = losses.attention_distribution_loss(student, teacher).item()
    assert loss.item() == pytest.approx(divergence + entropy)


@pytest.mark.parametrize("name", SCORE_LOSSES)
def test_causal_masks_by_minus_infinity_are_borne(name):
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    student, teacher = torch.randn(2, 1, 2, 4, 4).masked_fill(causal, -torch.inf)
    student.requires_grad_()
    value = getattr(losses, name)(student, teacher)
    value.backward()
    assert value.isfinite()
    assert student.grad.isfinite().all()


def test_a_sequence_without_tokens_is_left_out_of_the_mean():
    student, teacher = torch.randn(2, 2, 1, 3, 3)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    student.requires_grad_()
    for loss in (losses.attention_score_loss, losses.attention_distribution_loss):
        value = loss(student, teacher, mask=mask)
        torch.testing.assert_close(value, loss(student[:1], teacher[:1], mask=mask[:1]))
        (gradient,) = torch.autograd.grad(value, student)
        assert gradient.isfinite().all()
        assert gradient[1].abs().max() == 0


@pytest.mark.parametrize("name", SCORE_LOSSES)
@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        ((1, 4, 3, 3), (1, 12, 3, 3), r"student has 4 heads and teacher 12: .*relation_loss"),
        (
            (1, 4, 3, 3),
            (1, 4, 3, 5),
            r"\(1, 4, 3, 3\) and teacher scores \(1, 4, 3, 5\): feed both",
        ),
        ((4, 3, 3), (1, 4, 3, 3), r"scores need shape \(batch, heads, queries, keys\)"),
        ((1, 4, 3, 3), (4, 3, 3), r"scores need shape \(batch, heads, queries, keys\)"),
    ],
)
def test_scores_that_do_not_fit_are_refused_with_words(name, student, teacher, message):
    with pytest.raises(ValueError, match=message):
        getattr(losses, name)(torch.zeros(student), torch.zeros(teacher))


@pytest.mark.parametrize("name", SCORE_LOSSES[:2])
def test_cross_attention_is_compared_but_not_masked_by_tokens(name):
    student, teacher = torch.randn(2, 1, 2, 3, 5)
    loss = getattr(losses, name)
    assert loss(student, teacher) > 0
    with pytest.raises(ValueError, match="3 queries and 5 keys are no self-attention"):
        loss(student, teacher, mask=torch.ones(1, 5, dtype=torch.bool))


def relations(x, y, heads):
    size = x.shape[1] // heads
    parts = [slice(h * size, (h + 1) * size) for h in range(heads)]
    return [softmax(x[:, part] @ y[:, part].T / math.sqrt(size)) for part in parts]


@given(st.sampled_from([1, 2, 4]), st.booleans(), st.integers(0, 10**6))
@few
def test_relations_match_a_loop_over_sequences_and_heads(heads, paired, seed):
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.randn(2, 2, 5, 8, dtype=torch.float64, generator=generator)
    tx, ty = torch.randn(2, 2, 5, 12, dtype=torch.float64, generator=generator)
    if not paired:
        y, ty = x, tx
    lengths = [5, 3]
    mask = torch.arange(5) < torch.tensor(lengths)[:, None]
    means = []
    for b, n in enumerate(lengths):
        p = relations(tx[b, :n].numpy(), ty[b, :n].numpy(), heads)
        q = relations(x[b, :n].numpy(), y[b, :n].numpy(), heads)
        means.append(np.mean([(pi * np.log(pi / qi)).sum(-1) for pi, qi in zip(p, q, strict=True)]))
    sides = ((x, y), (tx, ty)) if paired else (x, tx)
    loss = losses.relation_loss(*sides, relation_heads=heads, mask=mask)
    assert loss.item() == pytest.approx(np.mean(means))


def test_relations_train_queries_and_keys_and_leave_the_teacher():
    tensors = [torch.randn(1, 3, 4, requires_grad=True) for _ in range(4)]
    losses.relation_loss(tuple(tensors[:2]), tuple(tensors[2:]), relation_heads=2).backward()
    assert all(tensor.grad.abs().sum() > 0 for tensor in tensors[:2])
    assert all(tensor.grad is None for tensor in tensors[2:])


@pytest.mark.parametrize(
    ("student", "teacher", "heads", "message"),
    [
        ((1, 3, 8), (1, 3, 12), 8, "teacher has width 12, which 8 relation heads do not divide"),
        ((1, 3, 6), (1, 3, 12), 4, "student has width 6, which 4 relation heads do not divide"),
        ((1, 3, 8), (1, 3, 8), 0, "relation_heads is 0: expected a whole number >= 1"),
        ((1, 3, 8), (1, 4, 8), 2, "scores .*feed both the same tokens"),
        ((3, 8), (1, 3, 8), 2, r"student states need shape \(batch, length, width\), got \(3, 8\)"),
    ],
)
def test_relations_that_do_not_fit_are_refused_with_words(student, teacher, heads, message):
    with pytest.raises(ValueError, match=message):
        losses.relation_loss(torch.ones(student), torch.ones(teacher), relation_heads=heads)


def test_a_side_is_a_tensor_or_a_pair():
    x = torch.ones(1, 3, 4)
    for sides, name in (
        (((x, x, x), x), "student"),
        ((x, (x, x, x)), "teacher"),
        (([x], x), "student"),
    ):
        with pytest.raises(TypeError, match=f"{name} must be one tensor or a pair such as"):
            losses.relation_loss(*sides, relation_heads=2)
    for side in ("student", "teacher"):
        sides = ((x, x[..., :2]), x) if side == "student" else (x, (x, x[..., :2]))
        message = rf"^{side} queries have shape \(1, 3, 4\) and keys \(1, 3, 2\): give queries and"
        with pytest.raises(ValueError, match=message):
            losses.relation_loss(*sides, relation_heads=2)
    with pytest.raises(ValueError, match="^student are on cpu and student on meta"):
        losses.relation_loss((x, x.to("meta")), x, relation_heads=2)


def test_each_sequence_needs_a_token():
    x = torch.ones(2, 3, 4)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    with pytest.raises(ValueError, match="a sequence has no token that counts: drop it"):
        losses.relation_loss(x, x, relation_heads=2, mask=mask)


def test_hidden_states_are_compared_over_tokens_that_count():
    student, teacher = torch.randn(2, 2, 3, 4, dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    gap = (student - teacher).numpy()
    expected = np.concatenate([gap[0, :2].ravel(), gap[1, :1].ravel()])
    loss = losses.hidden_state_loss(student, teacher, mask=mask)
    assert loss.item() == pytest.approx((expected**2).mean())
    assert losses.hidden_state_loss(student, teacher).item() == pytest.approx((gap**2).mean())


def test_other_widths_want_a_projector():
    with pytest.raises(ValueError, match=r"width with projectors.LinearProjector"):
        losses.hidden_state_loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 8))


@pytest.mark.parametrize(
    ("student", "teacher", "uniform"),
    [
        (4, 12, {0: 2, 1: 5, 2: 8, 3: 11}),
        (3, 3, {0: 0, 1: 1, 2: 2}),
        (3, 8, {0: 1, 1: 4, 2: 7}),
        (1, 12, {0: 11}),
    ],
)
def test_uniform_maps_end_at_the_last_layer(student, teacher, uniform):
    assert losses.layer_map(student, teacher) == uniform
    assert losses.layer_map(student, teacher, choice="uniform") == uniform


def test_last_and_custom_maps():
    assert losses.layer_map(3, 12, choice="last") == {0: 9, 1: 10, 2: 11}
    custom = {0: 11, 2: 0}
    given = losses.layer_map(3, 12, choice=custom)
    assert given == custom
    assert given is not custom


@pytest.mark.parametrize("pairs", [{3: 0}, {0: 12}, {0: 1, 1: 12}])
def test_layers_that_do_not_exist_are_named(pairs):
    message = r"does not exist: student layers are 0 to 2, teacher layers 0 to 11"
    with pytest.raises(ValueError, match=message):
        losses.layer_map(3, 12, choice=pairs)


@pytest.mark.parametrize(
    ("pairs", "error", "message"),
    [
        ({0: 1.5}, TypeError, "a teacher layer is 1.5: expected a whole number >= 0"),
        ({"0": 1}, TypeError, "a student layer is '0': expected a whole number >= 0"),
        ({True: 1}, TypeError, "a student layer is True: expected a whole number >= 0"),
        ({-1: 0}, ValueError, "a student layer is -1: expected a whole number >= 0"),
        ({0: -1}, ValueError, "a teacher layer is -1: expected a whole number >= 0"),
    ],
)
def test_layers_of_a_map_are_whole_numbers(pairs, error, message):
    with pytest.raises(error, match=message):
        losses.layer_map(3, 12, choice=pairs)


def test_a_map_of_numbers_of_numpy_becomes_one_of_pythons():
    given = losses.layer_map(3, 12, choice={np.int64(0): np.int64(11)})
    assert given == {0: 11}
    assert {type(layer) for pair in given.items() for layer in pair} == {int}


def test_a_student_has_layers_and_not_more_than_its_teacher():
    with pytest.raises(ValueError, match="student has 5 layers and teacher 4"):
        losses.layer_map(5, 4)
    with pytest.raises(ValueError, match="student_layers is 0: expected a whole number >= 1"):
        losses.layer_map(0, 4)


def test_unknown_and_empty_maps_are_refused():
    with pytest.raises(ValueError, match="choice is 'first', expected one of 'uniform', 'last'"):
        losses.layer_map(2, 4, choice="first")
    with pytest.raises(ValueError, match="the layer map is empty"):
        losses.layer_map(2, 4, choice={})


def test_relations_do_not_drown_in_what_all_tokens_share():
    """A shift of all keys leaves the softmax alone; its products must not round it away."""
    torch.manual_seed(0)
    student, teacher = 1e4 + 1e-2 * torch.randn(2, 2, 5, 8)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    for options in ({}, {"mask": mask}):
        given, exact = student.clone().requires_grad_(), student.double().requires_grad_()
        found = losses.relation_loss(given, teacher, relation_heads=2, **options)
        right = losses.relation_loss(exact, teacher.double(), relation_heads=2, **options)
        assert found.item() == pytest.approx(right.item(), rel=1e-3)


@pytest.mark.parametrize("place", [0, 1], ids=["queries", "keys"])
def test_states_that_diverged_are_named_before_they_become_relations(place):
    sides = [torch.randn(1, 3, 4) for _ in range(2)]
    diverged = list(sides)
    diverged[place] = sides[place] * torch.inf
    with pytest.raises(ValueError, match="^student states contain inf"):
        losses.relation_loss(tuple(diverged), tuple(sides), relation_heads=2)
    with pytest.raises(ValueError, match="^teacher states contain inf"):
        losses.relation_loss(tuple(sides), tuple(diverged), relation_heads=2)


def test_probabilities_are_no_attention_scores():
    scores = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match="teacher scores sum to 1 in each row"):
        losses.attention_score_loss(scores, scores.softmax(-1))
