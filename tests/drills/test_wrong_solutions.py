"""What wrong solutions are told that readers would write: the cause, and nothing that is false."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from kdlearn.drills import find
from kdlearn.drills.grader.grade import grade


def exp_on_both_sides(queries, keys):
    def feature(x):
        return torch.where(x > 0, x + 1, x.exp())

    products = torch.tril(feature(queries) @ feature(keys).mT)
    return products / products.sum(-1, keepdim=True)


def mask_forgotten(student_maps, teacher_maps, mask):
    logs = student_maps.mean(1).clamp_min(1e-12).log()
    return F.kl_div(logs, teacher_maps.detach().mean(1), reduction="batchmean")


def means_of_empty_bins(probabilities, labels, *, bins):
    confidence, predicted = probabilities.max(1)
    right, error = (predicted == labels).to(confidence), 0.0
    for one in range(bins):
        inside = (confidence > one / bins) & (confidence <= (one + 1) / bins)
        gap = right[inside].mean() - confidence[inside].mean()
        error += inside.double().mean().item() * abs(gap).item()
    return error


def the_other_side_is_detached(s, t, *, temperature):
    q, p = (s.detach() / temperature).log_softmax(1), (t / temperature).softmax(1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean")


def the_other_map_is_detached(student, teacher):
    maps = [F.normalize(x.square().sum(1).flatten(1)) for x in (student.detach(), teacher)]
    return F.mse_loss(*maps)


def log_target_of_probabilities(s, t, *, temperature):
    q, p = (s / temperature).log_softmax(1), (t.detach() / temperature).softmax(1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)


def log_target_of_the_tokens(s, t, mask, *, temperature):
    return log_target_of_probabilities(s[mask], t[mask], temperature=temperature)


def norm_of_channels(features, *, p):
    return F.normalize(features.norm(p=p, dim=1).flatten(1)).view_as(features[:, 0])


def norms_of_channels(student, teacher):
    maps = [F.normalize(x.norm(dim=1).flatten(1)) for x in (student, teacher.detach())]
    return (maps[0] - maps[1]).square().mean()


def rows_without_permute(student, teacher, weight):
    batch, channels, height, width = student.shape
    rows = student.reshape(batch * height * width, channels) @ weight.T
    return F.mse_loss(rows.reshape(batch, -1, height, width), teacher.detach())


def length_of_the_power(features, *, p):
    energy = features.abs().pow(p).sum(1)
    return F.normalize(energy.flatten(1), p=p, dim=1).view_as(energy)


def one_minus_cosine(student, teacher):
    maps = [x.square().sum(1).flatten(1) for x in (student, teacher.detach())]
    return (1 - F.cosine_similarity(*maps)).mean()


def label_written_back(probabilities, labels, generator):
    order = torch.randperm(probabilities.shape[1], generator=generator)
    label = probabilities.gather(1, labels[:, None])
    return probabilities[:, order].scatter(1, labels[:, None], label)


@pytest.mark.parametrize(
    ("name", "solution", "told"),
    [
        ("hint-loss", rows_without_permute, ["reshaped-not-permuted"]),
        ("activation-map", length_of_the_power, ["power-as-norm"]),
        ("at-loss", one_minus_cosine, ["cosine"]),
        ("permuted-targets", label_written_back, ["label-twice"]),
        ("linear-attention-map", exp_on_both_sides, ["nan-gradient"]),
        ("attention-kl", mask_forgotten, ["padding-counted", "divided-by-batch"]),
        ("calibration-error", means_of_empty_bins, ["not-finite"]),
        ("kd-loss", the_other_side_is_detached, ["teacher-gradient", "no-gradient"]),
        ("at-loss", the_other_map_is_detached, ["teacher-gradient", "no-gradient"]),
        ("kd-loss", log_target_of_probabilities, ["log-target-of-probabilities"]),
        ("token-kd", log_target_of_the_tokens, ["log-target-of-probabilities"]),
        ("activation-map", norm_of_channels, ["rooted"]),
        ("at-loss", norms_of_channels, ["rooted"]),
    ],
)
def test_the_cause_is_named(name, solution, told):
    for seed in (1, 2, 3):
        assert [one.id for one in grade(find(name), solution, seed=seed).diagnoses] == told


def shuffled(teacher, images, *, batch_size):
    modes = [(part, part.training) for part in teacher.modules()]
    teacher.eval()
    with torch.no_grad():
        loader = DataLoader(images, batch_size=batch_size, shuffle=True)
        stored = torch.cat([teacher(batch) for batch in loader])
    for part, mode in modes:
        part.training = mode
    return stored


def next_place(target, draft, tokens, uniforms):
    for place, token in enumerate(tokens.tolist()):
        if uniforms[place] >= target[place + 1, token] / draft[place, token]:
            return place, (target[place + 1] - draft[place]).clamp(min=0)
    return len(tokens), target[-1]


def low_scores(queries, keys, mask):
    scores = queries @ keys.mT / queries.shape[-1] ** 0.5
    return scores.masked_fill(~mask[:, None, None], -1e9).softmax(-1)


@pytest.mark.parametrize(
    ("name", "solution", "words"),
    [
        ("teacher-cache", shuffled, "rows of your logits are the right ones in another order"),
        ("speculative-acceptance", next_place, "did not change when uniforms was changed a little"),
        ("attention-weights", low_scores, "uniform after a finite number: return zeros"),
        ("calibration-error", means_of_empty_bins, "mean gives NaN"),
    ],
)
def test_what_is_said_is_true(name, solution, words):
    report = grade(find(name), solution, seed=1)
    assert words in str(report) and "nothing but -inf" not in str(report)
