import pytest
import torch

from kdlearn.data import FixedCopies, RandomCropFlip, RandomShift, Split, Splits
from kdlearn.distill.teachers import NoTeacher
from kdlearn.measure import count_parameters
from kdlearn.recipes import Recipe, RecipeError, build, distiller, load, terms
from kdlearn.recipes.build import copies, make_augment, make_optimizer
from kdlearn.recipes.schema import TrainingTable
from kdlearn.store import AttentionMap
from tests.recipes import small as small_module
from tests.recipes.small import OWN, RECIPE


def changed(recipe: Recipe, **tables) -> Recipe:
    content = recipe.model_dump(exclude_unset=True)
    for table, values in tables.items():
        content[table] = {**content.get(table, {}), **values}
    return Recipe.model_validate(content)


@pytest.fixture
def small(tmp_path) -> Recipe:
    (tmp_path / "recipe.toml").write_text(RECIPE)
    return load(tmp_path / "recipe.toml")


@pytest.fixture
def own(tmp_path) -> Recipe:
    (tmp_path / "own.toml").write_text(OWN)
    return load(tmp_path / "own.toml")


def test_the_student_follows_the_seed_and_the_teacher_the_data(small):
    first, again, other = (build(small, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.student.classifier.weight, again.student.classifier.weight)
    assert not torch.equal(first.student.classifier.weight, other.student.classifier.weight)
    assert torch.equal(first.teacher.classifier.weight, other.teacher.classifier.weight)
    assert len(first.data.train.images) == 60 and len(first.pool.images) == 300
    assert count_parameters(first.teacher) > 2 * count_parameters(first.student)


@pytest.mark.parametrize(
    ("name", "side", "millions"),
    [
        ("16-1-from-16-2", "student", 0.2),
        ("16-1-from-16-2", "teacher", 0.7),
        ("16-1-from-40-1", "teacher", 0.6),
        ("16-2-from-40-2", "teacher", 2.2),
    ],
)
def test_the_networks_of_the_paper_have_its_numbers_of_parameters(name, side, millions):
    # Table 1 of the attention transfer paper.
    table = getattr(load(f"cifar10-attention-transfer:{name}"), side)
    network = table.make(classes=10, channels=3)
    assert round(count_parameters(network) / 1e6, 1) == millions


def test_a_method_becomes_its_terms():
    recipe = load("cluttered-digits")
    small = changed(recipe, data={"images": 20, "train": 200, "validation": 10, "test": 10})
    built = build(small, seed=0)
    model = distiller(small, "AT+KD", built.student, built.teacher)
    assert {term.name: term.weight for term in model.terms} == {
        "labels": 0.1,
        "soft_target_loss": 0.9,
        "attention_transfer_loss": 20.0,
    }
    loss = model(built.data.train.images[:4], built.data.train.labels[:4])
    assert torch.isfinite(loss.total)


def test_a_loss_that_is_named_twice_is_two_parts(small):
    twice = [{"loss": "labels"}, {"loss": "labels", "weight": 2.0}]
    recipe = changed(small, methods={"twice": twice})
    built = build(recipe, seed=0)
    model = distiller(recipe, "twice", built.student, built.teacher)
    parts = model(built.data.train.images[:4], built.data.train.labels[:4]).parts
    assert list(parts) == ["labels", "labels_2"]
    assert parts["labels_2"].item() == pytest.approx(2 * parts["labels"].item())


def test_what_a_method_or_layer_is_called_is_checked(small):
    built = build(small, seed=0)
    with pytest.raises(RecipeError, match="no method 'kd': choose from 'student', 'KD', 'KD\\+AT'"):
        distiller(small, "kd", built.student, built.teacher)
    wrong = changed(small, methods={"hint": [{"loss": "hint_loss", "layers": ["grup1"]}]})
    with pytest.raises(RecipeError, match="method 'hint': student: .*'grup1': close are 'group1'"):
        distiller(wrong, "hint", built.student, built.teacher)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"data": {"images": 5}}, "data.images: 5 images cannot show 10 classes: expected 10"),
        ({"data": {"images": 50000}}, "data.images: class 0 has"),
        ({"data": {"train": 0}}, "data: train .* 0"),
        ({"student": {"width": 0}}, "student: width .* 0"),
    ],
)
def test_what_a_function_refuses_is_told_with_its_table(small, tables, said):
    with pytest.raises(RecipeError, match=said):
        build(changed(small, **tables), seed=0)


def test_cifar_asks_for_its_files(small, tmp_path):
    pytest.importorskip("datasets")
    content = {
        **small.model_dump(exclude_unset=True),
        "data": {"name": "cifar10", "folder": str(tmp_path)},
    }
    with pytest.raises(RecipeError, match=r"data: .* has no train\*\.parquet"):
        build(Recipe.model_validate(content), seed=0)


def test_your_own_networks_learn_the_classes_of_your_own_data(own):
    built = build(own, seed=0)
    assert built.student.logits.out_features == 5
    assert built.teacher.logits.bias.tolist() == [7.0] * 5


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        (
            {"data": {"name": "tests.recipes.small:trained_teacher", "classes": 3}},
            "data: its function returned a Everything: expected a Splits",
        ),
        (
            {"student": {"model": "tests.recipes.small:make_data", "seed": 3}},
            "student: its function returned a Splits: expected a Module",
        ),
    ],
)
def test_a_function_of_yours_that_makes_something_else_is_told(own, tables, said):
    with pytest.raises(RecipeError, match=said):
        build(changed(own, **tables), seed=0)


@pytest.mark.parametrize("place", ["data", "teacher", "student"])
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("size mismatch"), r"RuntimeError\('size mismatch'\)"),
        (KeyError("head"), r"KeyError\('head'\)"),
        (AssertionError(), "AssertionError"),
        (ValueError("no such width."), "no such width"),
    ],
)
def test_whatever_a_function_of_yours_raises_is_told_with_its_table(
    own, monkeypatch, place, error, said
):
    def failing(**offered):
        raise error

    monkeypatch.setattr(small_module, "failing", failing, raising=False)
    name = {"name" if place == "data" else "model": "tests.recipes.small:failing"}
    with pytest.raises(RecipeError, match=f"^{place}: {said}"):
        build(changed(own, **{place: name}), seed=0)


@pytest.mark.parametrize("name", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda split: None, "a NoneType"),
        (lambda split: (split.images, split.labels), "a tuple"),
        (lambda split: split[:0], "0 images in a Tensor"),
        (lambda split: Split([1], torch.zeros(1), torch.zeros(1)), "1 images in a list"),
    ],
)
def test_parts_of_your_own_data_that_are_no_splits_are_told(own, monkeypatch, name, change, said):
    parts = vars(small_module.make_data(seed=0)).copy()
    made = Splits(**{**parts, name: change(parts[name])})
    monkeypatch.setattr(small_module, "make_data", lambda: made)
    with pytest.raises(RecipeError, match=f"data: {name} is {said}: expected a Split"):
        build(own, seed=0)


def test_optimizers_and_schedules_are_those_of_the_table():
    table = TrainingTable(
        epochs=5,
        batch_size=3,
        optimizer="sgd",
        learning_rate=0.1,
        decay_at=[0.5, 0.8],
        decay_by=0.2,
    )
    optimizer, scheduler = make_optimizer(table, torch.nn.Linear(2, 2), samples=4)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([0.1] * 5 + [0.02] * 3 + [0.004] * 2)
    # As in the code of the attention transfer paper and of RepDistiller: no Nesterov momentum.
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert not optimizer.param_groups[0]["nesterov"]
    adam, _ = make_optimizer(TrainingTable(epochs=1), torch.nn.Linear(2, 2), samples=3)
    assert isinstance(adam, torch.optim.AdamW)


def test_augmentations_are_those_named_and_fixed_copies_where_the_teacher_is_stored(small):
    assert make_augment(small.training) == RandomShift()
    assert make_augment(TrainingTable(epochs=1, augment="crop-flip")) == RandomCropFlip()
    assert make_augment(TrainingTable(epochs=1)) is None
    assert copies(small) is None
    assert copies(changed(small, cache={"copies": 3})) == FixedCopies(RandomShift(), (0, 1, 2))
    assert copies(changed(small, training={"augment": "none"}, cache={})) is None


def test_a_term_keeps_less_than_the_features_where_that_is_stored(small):
    recipe = changed(
        small,
        methods={
            "both": [
                {"loss": "similarity_preserving_loss", "layers": ["group1"]},
                {"loss": "attention_transfer_loss", "layers": ["group1"], "options": {"p": 4}},
            ]
        },
    )
    stored = changed(recipe, cache={"copies": 2})
    assert [want.keep for term in terms(recipe, "both") for want in term.wants] == [None, None]
    kept = [want.keep for term in terms(stored, "both") for want in term.wants]
    assert kept == [None, AttentionMap(p=4)]


def test_labels_alone_ask_no_teacher(small):
    built = build(small, seed=0)
    assert isinstance(distiller(small, "student", built.student, built.teacher).source, NoTeacher)
    assert distiller(small, "KD", built.student, built.teacher).teacher is built.teacher
