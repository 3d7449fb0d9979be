import torch

from kdlearn.experiments import two_tokenizers as experiment
from kdlearn.losses import uld_loss


def language(seed=0, labels=5000):
    return experiment.draw(labels, torch.Generator().manual_seed(seed))


def test_pairs_that_begin_alike_have_the_probability_of_their_first_letter():
    drawn = language()
    begins = drawn.pairs.exp().unflatten(1, (6, 6)).sum(2)
    torch.testing.assert_close(begins, drawn.letters.exp())


def test_the_truth_is_where_spans_and_first_letters_lose_nothing():
    drawn = language()
    assert experiment.span_kl(drawn.pairs, drawn).abs() < 1e-6
    assert experiment.first_letter_kl(drawn.pairs, drawn).abs() < 1e-6


def test_sorted_probabilities_do_not_tell_a_truth_from_a_shuffled_one():
    drawn = language()
    shuffled = drawn.pairs[:, torch.randperm(36, generator=torch.Generator().manual_seed(1))]
    assert uld_loss(shuffled, drawn.pairs) < 1e-6
    assert experiment.span_kl(shuffled, drawn) > 0.5


def test_labels_are_drawn_from_the_truth():
    drawn = language(labels=200_000)
    counts = torch.bincount(drawn.labels[drawn.before == 2], minlength=36)
    share = counts / counts.sum()
    assert (share - drawn.pairs.exp()[2]).abs().max() < 0.01
