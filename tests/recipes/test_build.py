import pytest
import torch

from kdlearn.data import RandomCropFlip, RandomShift
from kdlearn.distill import Want
from kdlearn.measure import count_parameters
from kdlearn.recipes import RecipeError, build, distiller, load
from kdlearn.recipes.build import fixed_copies, make_augment, make_optimizer, stored_teacher
from kdlearn.recipes.schema import Recipe, TrainingTable
from kdlearn.store import AttentionMap


def changed(recipe: Recipe, **tables) -> Recipe:
    content = recipe.model_dump()
    for table, values in tables.items():
        content[table] = values if content[table] is None else {**content[table], **values}
    return Recipe.model_validate(content)


CLUTTERED = load("cluttered-digits")


def test_the_student_follows_the_seed_and_the_teacher_the_data():
    first, again, other = (build(CLUTTERED, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.student.classifier.weight, again.student.classifier.weight)
    assert not torch.equal(first.student.classifier.weight, other.student.classifier.weight)
    assert torch.equal(first.teacher.classifier.weight, other.teacher.classifier.weight)
    assert len(first.data.train.images) == 400 and len(first.pool.images) == 10000
    assert count_parameters(first.teacher) > 8 * count_parameters(first.student)


def test_the_networks_of_the_paper_have_its_numbers_of_parameters():
    # Table 1 of the attention transfer paper: 0.2, 0.7, 0.6 and 2.2 million.
    from kdlearn.recipes.build import _network

    for name, side, millions in (
        ("cifar10-at-16-1-from-16-2", "student", 0.2),
        ("cifar10-at-16-1-from-16-2", "teacher", 0.7),
        ("cifar10-at-16-1-from-40-1", "teacher", 0.6),
        ("cifar10-at-16-2-from-40-2", "teacher", 2.2),
    ):
        network = _network(getattr(load(name), side), 10, 3)
        assert round(count_parameters(network) / 1e6, 1) == millions


def test_a_method_becomes_its_terms():
    built = build(CLUTTERED, seed=0)
    model = distiller(CLUTTERED, "AT+KD", built.student, built.teacher)
    assert {term.name: term.weight for term in model.terms} == {
        "labels": 0.1,
        "soft_target_loss": 0.9,
        "attention_transfer_loss": 20.0,
    }
    loss = model(built.data.train.images[:4], built.data.train.labels[:4])
    assert torch.isfinite(loss.total)


def test_what_a_method_or_layer_is_called_is_checked():
    built = build(CLUTTERED, seed=0)
    with pytest.raises(RecipeError, match="no method 'at': choose from 'student', 'KD', 'AT'"):
        distiller(CLUTTERED, "at", built.student, built.teacher)
    terms = [{"loss": "hint_loss", "layers": ["grup1"]}]
    wrong = changed(CLUTTERED, methods={"hint": terms})
    with pytest.raises(RecipeError, match="method 'hint': student: .*'grup1': close are 'group1'"):
        distiller(wrong, "hint", built.student, built.teacher)


def test_more_images_than_there_are_is_told():
    with pytest.raises(RecipeError, match="data.images: class 0 has"):
        build(changed(CLUTTERED, data={"images": 50000}), seed=0)


def test_the_store_keeps_maps_for_attention_and_features_for_the_rest(tmp_path):
    terms = [
        {"loss": "attention_transfer_loss", "layers": ["group2"], "options": {"p": 4}},
        {"loss": "pkt_loss", "layers": {"classifier": "norm"}},
    ]
    recipe = changed(
        CLUTTERED,
        data={"images": 20},
        methods={"both": terms},
        cache={"copies": 2, "dtype": "float16"},
    )
    built = build(recipe, seed=0)
    stored = stored_teacher(recipe, "both", built, tmp_path, progress=False)
    assert len(stored) == 40 and stored.copies == fixed_copies(recipe)
    stored.check([Want("group2", AttentionMap(p=4)), Want("norm")])
    assert stored.bytes_per_row()["layer/group2"] == 2 * 10 * 10
    with pytest.raises(RecipeError, match=r"no \[cache\] table"):
        stored_teacher(CLUTTERED, "AT", built, tmp_path / "other", progress=False)


def test_optimizers_and_schedules_are_those_of_the_table():
    table = TrainingTable(
        epochs=10, optimizer="sgd", learning_rate=0.1, decay_at=(0.5, 0.8), decay_by=0.2
    )
    optimizer, scheduler = make_optimizer(table, torch.nn.Linear(2, 2), steps=10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1] * 5 + [0.02] * 3 + [0.004] * 2)
    assert optimizer.param_groups[0]["nesterov"]
    adam, _ = make_optimizer(TrainingTable(epochs=1), torch.nn.Linear(2, 2), steps=3)
    assert isinstance(adam, torch.optim.AdamW)


def test_augmentations_are_those_named():
    assert make_augment(CLUTTERED, CLUTTERED.training) == RandomShift()
    crop = changed(CLUTTERED, training={"augment": "crop-flip"})
    assert make_augment(crop, crop.training) == RandomCropFlip()
    assert fixed_copies(CLUTTERED) is None
