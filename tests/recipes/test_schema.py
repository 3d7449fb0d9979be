import pytest

from kdlearn.recipes import RecipeError, load, shipped

GOOD = """
[data]
name = "warped-digits"
images = 50

[teacher]
model = "small-cnn"
width = 4

[student]
model = "small-cnn"
width = 2

[teacher_training]
epochs = 1

[training]
epochs = 2

[methods]
KD = [{ loss = "labels", weight = 0.1 }, { loss = "soft_target_loss" }]
AT = [{ loss = "attention_transfer_loss", layers = ["group1"], options = { p = 4 } }]
"""


@pytest.fixture
def said(tmp_path):
    def message(old: str, new: str) -> str:
        path = tmp_path / "recipe.toml"
        path.write_text(GOOD.replace(old, new))
        assert old in GOOD
        with pytest.raises(RecipeError) as caught:
            load(path)
        return str(caught.value)

    return message


def test_a_good_recipe_is_read_with_its_defaults(tmp_path):
    (tmp_path / "recipe.toml").write_text(GOOD)
    recipe = load(tmp_path / "recipe.toml")
    assert recipe.training.epochs == 2 and recipe.training.optimizer == "adamw"
    assert [term.loss for term in recipe.methods["KD"]] == ["labels", "soft_target_loss"]
    assert recipe.methods["AT"][0].options == {"p": 4}


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_can_be_read(name):
    recipe = load(name)
    published = set(recipe.published) - {"source", "teacher"}
    assert published <= set(recipe.methods)
    if recipe.data.name.startswith("cifar"):
        assert published == set(recipe.methods) and recipe.published["source"]


def test_the_papers_networks_are_those_of_their_names():
    for name, (depth, width) in {
        "cifar10-at-16-1-from-16-2": (16, 16),
        "cifar10-at-16-1-from-40-1": (16, 16),
        "cifar10-at-16-2-from-40-2": (16, 32),
        "cifar100-repdistiller-40-2-to-16-2": (16, 32),
    }.items():
        student = load(name).student
        assert 6 * student.blocks + 4 == depth
        assert student.widths == (width, 2 * width, 4 * width)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs = 2", "epochs = 0", "training.epochs: 0 does not fit"),
        ("epochs = 2", "epoch = 2", "training.epoch: there is no such key; did you mean 'epochs'?"),
        ("epochs = 2", "batch_size = 4", "training.epochs: is missing and has no default"),
        ("epochs = 2", "epochs = 2\nzzz = 1", "training.zzz: there is no such key; known are"),
        ("epochs = 2", 'epochs = "two"', "training.epochs: 'two' does not fit"),
        ("epochs = 2", "epochs = 2\nlearning_rate = -1", "training.learning_rate: -1 does not fit"),
        ("epochs = 2", 'epochs = 2\nprecision = "fp8"', "'fp8' is not one of"),
        ('"warped-digits"', '"mnist"', "data.name: 'mnist' is not one of"),
        ("images = 50", 'folder = "x"', "data.folder is for CIFAR"),
        ("width = 2", "width = 0", "student.width: 0 does not fit"),
        ('"small-cnn"\nwidth = 2', '"vit"', "student.model: 'vit' is not one of"),
        ("soft_target_loss", "soft_target", "close are soft_target_loss"),
        ("weight = 0.1", "weight = -0.1", "methods.KD.0.weight: -0.1 does not fit"),
        ("weight = 0.1", "wieght = 0.1", "methods.KD.0.wieght: there is no such key; did you mean"),
        (', layers = ["group1"]', "", "attention_transfer_loss needs layers"),
        ('{ loss = "soft_target_loss" }', '{ loss = "labels", layers = ["a"] }', "takes no layers"),
        ("{ p = 4 }", "{ power = 4 }", "has no option 'power'; its options are: p, convention"),
        (
            'KD = [{ loss = "labels", weight = 0.1 }, { loss = "soft_target_loss" }]',
            "KD = []",
            "no term",
        ),
        ("[methods]", "[cache]\ncopies = 2\n[methods]", "cache.copies are of augmented images"),
        ("epochs = 2\n", 'epochs = 2\naugment = "shift"\n[cache]\n', "cannot serve fresh views"),
        ("[data]", "[data", "is not TOML"),
    ],
)
def test_each_mistake_gets_a_sentence(said, old, new, expected):
    assert expected in said(old, new)


def test_all_mistakes_are_told_at_once(said):
    message = said("epochs = 2", "epochs = 0\nepoch = 1\nbatch_size = 0")
    assert message.count("\n") == 3


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RecipeError, match="there is no recipe 'warped': name a file"):
        load("warped")
    with pytest.raises(RecipeError, match="No such file"):
        load(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="it is not text"):
        load(tmp_path / "bytes.toml")
