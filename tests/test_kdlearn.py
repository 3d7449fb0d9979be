import torch

import kdlearn
from kdlearn import Distiller, accuracy, fit, label_term, logit_term, predict, soft_target_loss
from kdlearn.data import balanced_subset, warped_digits
from kdlearn.models import SmallCNN


def test_the_ten_names_are_there():
    assert len(kdlearn.__all__) == 10
    assert all(callable(getattr(kdlearn, name)) for name in kdlearn.__all__)


def test_they_are_enough_to_distill():
    data = warped_digits(train=300, validation=10, test=50)
    torch.manual_seed(0)
    teacher, student = SmallCNN(4), SmallCNN(2)
    terms = [label_term(0.1), logit_term("soft", soft_target_loss, 0.9)]
    few = balanced_subset(data.train, 100)
    history = fit(Distiller(student, teacher, terms), few, epochs=2, progress=False)
    assert history.epochs[1]["loss"] < history.epochs[0]["loss"]
    assert 0 <= accuracy(predict(student, data.test.images), data.test.labels) <= 1
