import pytest

from kdlearn.models import SlimWRN
from kdlearn.recipes import RecipeError, load, shipped
from tests.recipes.small import OWN, RECIPE

INFINITE = " does not fit: input should be a finite number"


@pytest.fixture
def said(tmp_path):
    def message(old: str, new: str, content: str = RECIPE) -> str:
        path = tmp_path / "recipe.toml"
        path.write_text(content.replace(old, new))
        assert old in content
        with pytest.raises(RecipeError) as caught:
            load(path)
        return str(caught.value)

    return message


def test_a_good_recipe_is_read_with_its_defaults(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    recipe = load(tmp_path / "recipe.toml")
    assert recipe.training.epochs == 2 and recipe.training.optimizer == "adamw"
    assert [term.loss for term in recipe.methods["KD"]] == ["labels", "soft_target_loss"]
    assert recipe.methods["KD+AT"][1].options == {"p": 4}
    assert recipe.data.options == {"train": 300, "validation": 50, "test": 50}


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_says_what_it_is_and_its_published_numbers_have_a_source(name):
    recipe = load(name)
    assert recipe.about.endswith(".") and "\n" not in recipe.about
    published = set(recipe.published) - {"source", "teacher"}
    assert published <= set(recipe.methods)
    if recipe.data.name.startswith("cifar"):
        assert "Not yet run here" in recipe.about
        assert published == set(recipe.methods) and recipe.published["source"]


@pytest.mark.parametrize("name", [name for name in shipped() if "-from-" in name or "-to-" in name])
def test_the_papers_networks_have_the_depth_and_width_of_their_names(name):
    words = name.replace(":", "-").split("-")
    pairs = [
        (int(words[i - 2]), int(words[i - 1])) for i, w in enumerate(words) if w in ("from", "to")
    ]
    pairs += [(int(words[-2]), int(words[-1]))]
    if "to" in words:
        pairs.reverse()
    recipe = load(name)
    for side, (depth, width) in zip((recipe.student, recipe.teacher), pairs, strict=True):
        assert side.function is SlimWRN
        assert 6 * side.options["blocks"] + 4 == depth
        assert side.options["widths"] == [16 * width, 32 * width, 64 * width]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs = 2", "epochs = 0", "training.epochs: 0 does not fit: input should be greater"),
        ("epochs = 2", "epochs = true", "training.epochs: True does not fit"),
        ("epochs = 2", 'epochs = "3"', "training.epochs: '3' does not fit"),
        ("epochs = 2", "epoch = 2", "training.epoch: there is no such key; did you mean 'epochs'?"),
        ("epochs = 2", "batch_size = 4", "training.epochs: is missing and has no default"),
        ("epochs = 2", "epochs = 2\nlearning_rate = inf", f"training.learning_rate: inf{INFINITE}"),
        ("epochs = 2", "epochs = 2\nlearning_rate = nan", f"training.learning_rate: nan{INFINITE}"),
        (
            "epochs = 2",
            "epochs = 2\noptimizer = 'sgd'\nweight_decay = inf",
            f"training.weight_decay: inf{INFINITE}",
        ),
        ("weight = 0.1", "weight = inf", f"methods.KD.0.weight: inf{INFINITE}"),
        ("epochs = 2", "epochs = 2\nzzz = 1", "training.zzz: there is no such key; known are"),
        ("epochs = 2", "epochs = 2\nlearning_rate = -1", "training.learning_rate: -1 does not fit"),
        ("epochs = 2", 'epochs = 2\nprecision = "fp8"', "'fp8' is not one of"),
        ("epochs = 2", "epochs = 2\ndecay_at = [0.5]", "decay_at is read with optimizer = 'sgd'"),
        ('"warped-digits"', '"mnist"', "data: 'mnist' is not one of 'warped-digits', "),
        ("images = 60", 'folder = "x"', "data: there is no 'folder'; known are train, validation"),
        ("width = 2", "size = 2", "student: there is no 'size'; known are width"),
        ('"small-cnn"\nwidth = 2', '"small-cnn"', "student: 'width' is missing"),
        ('"small-cnn"\nwidth = 2', '"vit"', "student: 'vit' is not one of"),
        ('"small-cnn"\nwidth = 2', '"no_such:make"', "student: 'no_such:make' cannot be imported"),
        ('[student]\nmodel = "small-cnn"\nwidth = 2', "", "student: is missing and has no default"),
        ("KD = [", '"../x" = [', "method '../x' cannot be the name of a folder"),
        ("[teacher_training]\nepochs = 1\nbatch_size = 100", "", "teacher_training is missing"),
        ("[methods]", "[mehtods]", "mehtods: there is no such key; did you mean 'methods'?"),
        (
            '"soft_target_loss" }]',
            '"soft_target" }]',
            "methods.KD.1: there is no loss 'soft_target'",
        ),
        ("weight = 0.1", "weight = -0.1", "methods.KD.0.weight: -0.1 does not fit"),
        ("weight = 0.1", "wieght = 0.1", "methods.KD.0.wieght: there is no such key; did you mean"),
        ("weight = 0.1", "options = { T = 4 }", "options of labels: there is no 'T'"),
        (', layers = ["group1"]', "", "attention_transfer_loss needs layers"),
        ('"labels", weight = 0.1', '"labels", layers = ["a"]', "labels takes no layers"),
        ("{ p = 4 }", "{ power = 4 }", "there is no 'power'; known are p, convention"),
        ("{ p = 4 }", "{ p = [4] }", "options.p"),
        (
            'KD = [{ loss = "labels", weight = 0.1 }, { loss = "soft_target_loss" }]',
            "KD = []",
            "no te",
        ),
        (
            "[methods]",
            "[cache]\ncopy = 2\n[methods]",
            "cache.copy: there is no such key; did you me",
        ),
        ('augment = "shift"', "[cache]\ncopies = 2", "cache.copies are of augmented images"),
        ("[methods]", "[cache]\n[methods]", "cannot serve fresh views: set cache.copies"),
        ("[data]", "[data", "is not TOML"),
        (
            "images = 60",
            f"seed = {2**63}",
            f"data.seed: {2**63} does not fit: input should be less",
        ),
        ('source = "nobody"\n', "", "published.source is missing: say where the numbers come from"),
    ],
)
def test_each_mistake_gets_a_sentence(said, old, new, expected):
    assert expected in said(old, new)


@pytest.mark.parametrize("table", ["data", "teacher", "student"])
@pytest.mark.parametrize(
    "value", ["2020-01-01", "12:30:00", "nan", "-inf", "[1.0, nan]", "{ a = inf }"]
)
def test_an_option_that_no_file_can_hold_is_told_with_its_key(said, table, value):
    found = said(f"[{table}]\n", f"[{table}]\nsince = {value}\n", OWN)
    assert f"{table}.since: " in found and "does not fit: expected finite numbers" in found


def test_all_mistakes_are_told_at_once(said):
    message = said("epochs = 2", "epochs = 0\nepoch = 1\nbatch_size = 0")
    assert message.count("\n") == 3


def test_a_recipe_that_is_not_there_is_told(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe 'warped': name a file .*one of .*warped-dig"):
        load("warped")
    with pytest.raises(RecipeError, match="No such file"):
        load(tmp_path / "none.toml")
    with pytest.raises(RecipeError, match="Is a directory"):
        load(_folder(tmp_path / "folder.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="it is not text"):
        load(tmp_path / "bytes.toml")


def _folder(path):
    path.mkdir()
    return path


def test_of_several_pairs_in_a_file_each_has_its_own_tables(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE + '[pairs.wide]\nstudent = { model = "small-cnn", width = 8 }\n')
    recipe = load(f"{path}:wide")
    assert recipe.student.options == {"width": 8} and recipe.teacher.options == {"width": 4}
    for name in (path, f"{path}:narrow"):
        with pytest.raises(RecipeError, match=r"no recipe .* in the file; there are .*:wide"):
            load(name)
    path.write_text(RECIPE)
    with pytest.raises(
        RecipeError, match=r"no recipe .*:wide' in the file; there are .*recipe.toml"
    ):
        load(f"{path}:wide")


def test_your_own_networks_and_data_are_named_by_where_they_are(tmp_path, said):
    (tmp_path / "recipe.toml").write_text(OWN)
    recipe = load(tmp_path / "recipe.toml")
    assert recipe.teacher_training is None
    assert "student: there is no 'width'; known are hidden" in said(
        ':Everything"', ':Everything"\nwidth = 3', OWN
    )


@pytest.mark.parametrize("pairs", ["pairs = 3", "[pairs]\na = 3"])
def test_pairs_are_tables(said, pairs):
    assert "pairs: expected tables [pairs.NAME]" in said('about = "small"', pairs + "\n")


def test_a_recipe_may_begin_with_the_mark_of_an_editor(tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8-sig")
    assert load(tmp_path / "recipe.toml").training.epochs == 2
