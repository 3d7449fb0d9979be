import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdlearn.data import Batch, Samples
from kdlearn.distill import Distiller, label_term, logit_term, sparse_term
from kdlearn.distill.served import ServedTeacher
from kdlearn.losses import forward_kl, reverse_kl, sequence_reverse_kl, top_k_kl
from kdlearn.models import RecurrentLM
from kdlearn.store import TopK
from kdlearn.training import Checkpoints, fit
from kdlearn.training.generation import generate
from kdlearn.training.on_policy import OnPolicy, answer_mask, next_tokens

TOKENS = torch.randint(9, (8, 7), generator=torch.Generator().manual_seed(0))
MASK = (torch.arange(7) >= 3).expand(8, 7)
DATA = next_tokens(TOKENS, MASK)


@pytest.fixture
def student():
    torch.manual_seed(1)
    return RecurrentLM(9, hidden=16)


@pytest.fixture
def teacher():
    torch.manual_seed(2)
    return RecurrentLM(9, hidden=24)


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def test_each_token_is_the_label_of_the_one_before():
    assert torch.equal(DATA.inputs, TOKENS[:, :-1])
    assert torch.equal(DATA.labels[:, 2:], TOKENS[:, 3:])
    assert (DATA.labels[:, :2] == -100).all()
    assert torch.equal(answer_mask(DATA), MASK[:, 1:])


def test_the_batch_is_what_the_student_writes_to_the_prompts(student):
    batch = OnPolicy(student, prompt=3, new_tokens=4, stop=0).of_batch(DATA, generator())
    written = generate(student, TOKENS[:, :3], 4, stop=0, generator=generator())
    assert torch.equal(batch.inputs, written.tokens[:, :-1])
    assert torch.equal(answer_mask(batch), written.mask[:, 1:])
    assert torch.equal(batch.labels[answer_mask(batch)], written.tokens[written.mask])


def test_a_share_is_written_and_the_rest_is_the_datas(student):
    batch = OnPolicy(student, 3, 4, share=0.25).of_batch(DATA, generator())
    assert torch.equal(batch.inputs[2:], DATA.inputs[2:])
    assert torch.equal(batch.labels[2:], DATA.labels[2:])
    assert torch.equal(batch.inputs[:2, :3], DATA.inputs[:2, :3])
    assert not torch.equal(batch.inputs[:2], DATA.inputs[:2])
    assert OnPolicy(student, 3, 4, share=0).of_batch(DATA, generator()) is DATA


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_mask_of_the_data_becomes_that_of_what_was_written(student, share):
    views, old = OnPolicy(student, 3, 4, share=share, stop=0), torch.rand(DATA.labels.shape) < 0.5
    plain = views.of_batch(DATA, generator())
    masked = views.of_batch(replace(DATA, mask=old), generator())
    count = round(share * len(DATA))
    assert torch.equal(masked.mask[:count], answer_mask(plain)[:count])
    assert torch.equal(masked.mask[count:], old[count:]) and plain.mask is None
    if share < 1:
        with pytest.raises(ValueError, match="its mask has shape .* one truth value a token"):
            views.of_batch(replace(DATA, mask=old[:, :2]), generator())


def test_prompts_alone_are_data_enough_where_all_is_written(student):
    views = OnPolicy(student, 3, 4)
    assert views.of_batch(Batch(TOKENS[:, :3]), generator()).inputs.shape == (8, 6)
    with pytest.raises(ValueError, match="make the data with next_tokens, of 7 tokens each"):
        OnPolicy(student, 3, 4, share=0.5).of_batch(Batch(TOKENS[:, :3]), generator())


@pytest.mark.parametrize("loss", [forward_kl, reverse_kl])
def test_a_step_of_fit_is_the_step_written_out(student, teacher, loss):
    by_hand = copy.deepcopy(student)
    term = logit_term("kl", loss, mask=answer_mask)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.5)
    views = OnPolicy(student, 3, 4)
    batches = []

    class Noted:
        of_epoch = views.of_epoch

        def of_batch(self, batch, generator):
            batches.append(views.of_batch(batch, generator))
            return batches[-1]

    fit(
        Distiller(student, teacher, [term]),
        DATA,
        epochs=1,
        batch_size=8,
        optimizer=optimizer,
        augment=Noted(),
        progress=False,
    )
    tokens = batches[-1].inputs
    ours, theirs = (model(tokens)[:, 2:].log_softmax(-1) for model in (by_hand, teacher))
    front, back = (theirs, ours) if loss is forward_kl else (ours, theirs)
    (front.exp() * (front - back)).sum(-1).mean().backward()
    for name, parameter in by_hand.named_parameters():
        stepped = parameter - 0.5 * parameter.grad
        torch.testing.assert_close(student.get_parameter(name), stepped, rtol=1e-4, atol=1e-6)


def test_each_step_the_student_writes_as_it_has_become(student, teacher):
    """A teacher that says one token only is soon the student's own answer."""

    class Insists(nn.Module):
        def forward(self, tokens):
            return 20 * F.one_hot(torch.full_like(tokens, 4), 9).float()

    views = OnPolicy(student, 3, 4)
    distiller = Distiller(student, Insists(), [logit_term("kl", forward_kl, mask=answer_mask)])
    before = (views.of_batch(DATA, generator()).labels == 4).sum()
    fit(distiller, DATA, epochs=60, learning_rate=3e-2, augment=views, progress=False)
    after = (views.of_batch(DATA, generator()).labels == 4).sum()
    assert before < 16 and after >= 31


def test_the_sequence_estimator_and_labels_read_the_same_batch(student, teacher):
    terms = [
        logit_term("sequence", sequence_reverse_kl, with_labels=True, mask=answer_mask),
        label_term(),
    ]
    batch = OnPolicy(student, 3, 4, stop=0).of_batch(DATA, generator())
    parts = Distiller(student, teacher, terms).compute(batch).parts
    log_ratio = student(batch.inputs).log_softmax(-1) - teacher(batch.inputs).log_softmax(-1)
    taken = log_ratio.gather(2, batch.labels.clamp_min(0)[..., None]).squeeze(2)
    expected = (taken * answer_mask(batch)).sum(1).mean()
    torch.testing.assert_close(parts["sequence"], expected)


def test_a_served_teacher_scores_what_the_student_writes(student, teacher):
    asked = []

    def score(tokens):
        asked.append(tokens)
        return TopK(3).reduce(teacher(tokens))

    def trained(source):
        model = copy.deepcopy(student)
        term = sparse_term("top3", top_k_kl, TopK(3), mask=answer_mask)
        distiller = Distiller(model, source, [term])
        fit(distiller, DATA, epochs=2, augment=OnPolicy(model, 3, 4), progress=False)
        return model.state_dict()

    served, live = trained(ServedTeacher(score, TopK(3))), trained(teacher)
    assert all(torch.equal(served[name], value) for name, value in live.items())
    assert not torch.equal(asked[-1], DATA.inputs)


def test_a_resumed_run_writes_what_one_that_never_stopped_writes(student, teacher, tmp_path):
    checkpoints = Checkpoints(tmp_path, every_steps=1, keep=9)
    runs = []
    for more in ({}, {"resume": str(tmp_path / "step-00000002")}):
        model = copy.deepcopy(student)
        distiller = Distiller(model, teacher, [logit_term("kl", reverse_kl, mask=answer_mask)])
        fit(
            distiller,
            DATA,
            epochs=4,
            augment=OnPolicy(model, 3, 4),
            progress=False,
            checkpoints=checkpoints,
            **more,
        )
        runs.append(model.state_dict())
    assert all(torch.equal(runs[0][name], value) for name, value in runs[1].items())
    assert not torch.equal(runs[0]["token.weight"], student.token.weight)


def test_the_data_stay_as_they_are_from_epoch_to_epoch(student):
    samples = Samples.of(DATA)
    assert OnPolicy(student, 3, 4).of_epoch(samples, 2) is samples


def test_what_cannot_be_is_refused(student):
    with pytest.raises(TypeError, match="expected the module that fit trains"):
        OnPolicy("gpt2", 3, 4)
    with pytest.raises(ValueError, match="share is 2, expected a number from 0 to 1"):
        OnPolicy(student, 3, 4, share=2)
    with pytest.raises(ValueError, match="the data have 6 tokens and prompt is 9"):
        OnPolicy(student, 9, 4).of_batch(DATA, generator())
    with pytest.raises(ValueError, match="the mask keeps no token"):
        next_tokens(TOKENS, torch.arange(7).expand(8, 7) == 0)


def test_answers_of_a_batch_without_labels_are_told():
    with pytest.raises(ValueError, match="the batch has no labels, by which answers are known"):
        answer_mask(Batch(torch.zeros(1, 2)))
