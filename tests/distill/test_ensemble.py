import pytest
import torch
from torch import nn

from kdlearn.data import Batch
from kdlearn.distill import Ensemble, LiveTeacher, Want


def members() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 3)) for _ in range(3)]


def test_each_mean_is_what_its_name_says():
    models, x = members(), torch.randn(5, 4)
    answers = torch.stack([model(x) for model in models])
    mean = Ensemble(models, "logits")(x)
    torch.testing.assert_close(mean, answers.mean(0))
    voted = Ensemble(models)(x)
    torch.testing.assert_close(voted.exp(), answers.softmax(-1).mean(0))
    assert not torch.allclose(mean.softmax(-1), voted.softmax(-1), atol=1e-3)


def test_an_ensemble_is_a_teacher_whose_layers_can_be_tapped():
    models = members()
    teacher = LiveTeacher(Ensemble(models), [Want("models.1.0")])
    x = torch.randn(2, 4)
    assert torch.equal(teacher.outputs(Batch(x)).taps["models.1.0"], models[1][0](x))


def test_the_kind_of_mean_is_part_of_its_identity():
    from kdlearn.core.identity import digest_of_model

    models = members()
    assert digest_of_model(Ensemble(models)) != digest_of_model(Ensemble(models, "logits"))


def test_bad_ensembles_are_told():
    with pytest.raises(ValueError, match="has no model"):
        Ensemble([])
    with pytest.raises(ValueError, match="mean is 'median'"):
        Ensemble(members(), "median")
    one = [nn.Linear(4, 1), nn.Linear(4, 1)]
    with pytest.raises(ValueError, match="answer with 1 logit.*pass mean='logits'"):
        Ensemble(one)(torch.ones(2, 4))
    assert Ensemble(one, "logits")(torch.ones(2, 4)).shape == (2, 1)


def test_a_softmax_is_taken_once_and_over_classes():
    sure = nn.Sequential(nn.Linear(4, 3), nn.Softmax(-1))
    with pytest.raises(ValueError, match="a model of the ensemble sum to 1 in each row"):
        Ensemble([*members(), sure])(torch.randn(5, 4))
    maps = nn.Conv2d(1, 3, 1)
    with pytest.raises(ValueError, match=r"logits have shape \(2, 3, 4, 4\): make rows"):
        Ensemble([maps, maps])(torch.randn(2, 1, 4, 4))
    assert Ensemble([maps, maps], "logits")(torch.randn(2, 1, 4, 4)).shape == (2, 3, 4, 4)
