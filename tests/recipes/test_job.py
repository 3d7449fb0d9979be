import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from kdlearn.data import Split, Splits
from kdlearn.measure import accuracy, predict
from kdlearn.recipes import Job, RecipeError, load
from tests.recipes import small
from tests.recipes.small import OWN, RECIPE

TRAINED = OWN.replace(":trained_teacher", ":Everything").replace(
    "[methods]", '[teacher_training]\nepochs = 1\n[methods]\nlabels = [{ loss = "labels" }]'
)
STORED = RECIPE.replace("[methods]", "[cache]\ncopies = 2\n[methods]")


def job(folder, content=RECIPE, method="KD+AT", **options) -> Job:
    (folder / "recipe.toml").write_text(content)
    return Job(load(folder / "recipe.toml"), method, folder / "runs", progress=False, **options)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    job(folder).train()
    return folder


@pytest.fixture
def again(trained, tmp_path):
    """The folder of a finished run, to be spoiled."""
    shutil.copytree(trained, tmp_path / "again")
    return tmp_path / "again"


def test_training_leaves_teacher_student_and_history(trained):
    run = trained / "runs" / "KD+AT-0"
    history = json.loads((run / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2]
    assert list(history[0]["parts"]) == ["soft_target_loss", "attention_transfer_loss"]
    assert load_file(run / "student.safetensors")["classifier.weight"].shape == (10, 32)
    assert load_file(trained / "runs" / "teacher.safetensors")["classifier.weight"].shape == (
        10,
        64,
    )


def test_what_was_trained_is_loaded_and_measured_the_same(again):
    first, other = job(again), job(again)
    first.train(resume=True)
    other.load()
    measured = other.measure()
    assert measured == first.measure()
    assert json.loads((other.run / "test.json").read_text()) == measured
    assert 0 < measured["accuracy"] < 1 and measured["parameters"] < measured["teacher_parameters"]


def test_a_run_that_is_there_goes_on_only_on_request_and_then_trains_nothing(again):
    weights = (again / "runs" / "KD+AT-0" / "student.safetensors").read_bytes()
    with pytest.raises(RecipeError, match="holds a run already: go on with --resume"):
        job(again).train()
    job(again).train(resume=True)
    assert (again / "runs" / "KD+AT-0" / "student.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            '"warped-digits"',
            '"cluttered-digits"',
            "data.name was 'warped-digits' and is 'cluttered",
        ),
        ("train = 300", "train = 310", "data.train was 300 and is 310"),
        ("images = 60", "images = 60\nseed = 4", "data.seed was 0 and is 4"),
        ("epochs = 1\n", "epochs = 2\n", "teacher_training.epochs was 1 and is 2"),
        ("width = 4", "width = 8", "teacher.width was 4 and is 8"),
    ],
)
def test_the_teacher_of_another_recipe_is_refused_with_what_differs(again, old, new, said):
    before = (again / "runs" / "teacher.safetensors").read_bytes()
    with pytest.raises(RecipeError, match=f"teacher.safetensors was made by another .*{said}"):
        job(again, RECIPE.replace(old, new)).train()
    assert (again / "runs" / "teacher.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("epochs = 2", "epochs = 3", "training.epochs was 2 and is 3"),
        ("weight = 10", "weight = 9", "methods.1.weight was 10.0 and is 9.0"),
        ("images = 60", "images = 50", "data.images was 60 and is 50"),
    ],
)
def test_the_student_of_another_recipe_is_not_evaluated(again, old, new, said):
    with pytest.raises(RecipeError, match=f"student.safetensors was made by another .*{said}"):
        job(again, RECIPE.replace(old, new)).load()


def test_a_student_of_other_images_has_the_same_teacher(again):
    before = (again / "runs" / "teacher.safetensors").read_bytes()
    job(again, RECIPE.replace("images = 60", "images = 50"), seed=1).train()
    assert (again / "runs" / "teacher.safetensors").read_bytes() == before


def test_weights_that_nobody_signed_or_that_cannot_be_read_are_refused(again):
    path = again / "runs" / "teacher.safetensors"
    save_file(load_file(path), path)
    with pytest.raises(RecipeError, match="does not say which recipe made it"):
        job(again).load()
    path.write_text("not a network")
    with pytest.raises(RecipeError, match="teacher.safetensors cannot be read"):
        job(again).load()
    path.unlink()
    with pytest.raises(RecipeError, match="teacher.safetensors is not there: train first"):
        job(again).load()


def test_weights_that_do_not_fit_the_network_any_more_are_refused(trained, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    here = job(tmp_path)
    here.run.mkdir(parents=True)
    shutil.copy(trained / "runs" / "teacher.safetensors", tmp_path / "runs")
    here.built.teacher.classifier = torch.nn.Linear(3, 3)
    with pytest.raises(RecipeError, match="teacher.safetensors does not fit its network"):
        here.load()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("{ p = 4 }", '{ p = "four" }', "method 'KD\\+AT': .*four"),
        (
            '{ loss = "soft_target_loss" },',
            '{ loss = "soft_target_loss", options = { temperature = "four" } },',
            "method 'KD\\+AT': cannot begin: .*temperature is 'four'",
        ),
        (
            '{ loss = "soft_target_loss" },',
            '{ loss = "soft_target_loss", options = { temperature = -1 } },',
            "method 'KD\\+AT': .*temperature is -1, expected a positive",
        ),
        (
            '"attention_transfer_loss", weight = 10, layers = ["group1"], options = { p = 4 }',
            '"hint_loss", layers = ["group1"]',
            "method 'KD\\+AT': .*student features have shape .* bring the student's to",
        ),
        ('augment = "shift"', 'precision = "fp16"', "method 'KD\\+AT': .*precision is 'fp16'"),
        ("batch_size = 100", 'precision = "fp16"', "teacher_training: .*precision is 'fp16'"),
    ],
)
def test_what_cannot_run_is_told_before_a_teacher_is_trained(tmp_path, monkeypatch, old, new, said):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert old in RECIPE
    with pytest.raises(RecipeError, match=said):
        job(tmp_path, RECIPE.replace(old, new)).train()
    assert not (tmp_path / "runs").exists()


def test_a_first_step_changes_neither_the_networks_nor_the_random_state(tmp_path):
    here = job(tmp_path)
    models = here.built.student, here.built.teacher
    before = [value.clone() for model in models for value in model.state_dict().values()]
    random = torch.get_rng_state()
    here._rehearse()
    after = [value for model in models for value in model.state_dict().values()]
    assert all(torch.equal(first, second) for first, second in zip(before, after, strict=True))
    assert torch.equal(random, torch.get_rng_state())


def test_a_stored_teacher_gives_the_student_of_a_live_one_that_shows_the_same_views(tmp_path):
    plain = RECIPE.replace('augment = "shift"', "")
    (tmp_path / "live").mkdir()
    (tmp_path / "stored").mkdir()
    live = job(tmp_path / "live", plain).train()
    stored = job(tmp_path / "stored", plain.replace("[methods]", "[cache]\n[methods]")).train()
    for first, second in zip(live.epochs, stored.epochs, strict=True):
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-4)


def test_methods_have_stores_of_their_own(tmp_path):
    kd, both = job(tmp_path, STORED, "KD").store(), job(tmp_path, STORED).store()
    assert kd.folder.name == "store-KD" and both.folder.name == "store-KD+AT"
    assert len(kd) == len(both) == 2 * 60
    assert sum(kd.bytes_per_row().values()) < sum(both.bytes_per_row().values())


def test_a_recipe_without_a_cache_or_a_teacher_to_read_stores_nothing(tmp_path):
    here = job(tmp_path)
    with pytest.raises(RecipeError, match=r"the recipe has no \[cache\] table: add one"):
        here.store()
    assert "built" not in vars(here)  # not even the data were made for it
    with pytest.raises(RecipeError, match="'student' reads nothing of the teacher to be stored"):
        job(tmp_path, STORED, "student").store()
    assert not (tmp_path / "runs").exists()


def test_labels_alone_are_trained_where_the_recipe_stores_its_teacher(tmp_path):
    here = job(tmp_path, STORED, "student")
    assert list(here.train().epochs[0]["parts"]) == ["labels"]
    assert not list((tmp_path / "runs").glob("store-*"))


def test_a_teacher_that_comes_trained_is_not_trained_again(tmp_path):
    here = job(tmp_path, OWN, "KD")
    weights = {name: value.clone() for name, value in here.built.teacher.state_dict().items()}
    here.train()
    assert not (tmp_path / "runs" / "teacher.safetensors").exists()
    now = here.built.teacher.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in weights.items())
    other = job(tmp_path, OWN, "KD")
    other.load()
    assert other.measure() == here.measure()


def test_a_student_that_uses_a_layer_twice_is_kept_and_read(tmp_path):
    content = OWN.replace("small:Everything", "small:Shared")
    job(tmp_path, content, "KD").train()
    read = job(tmp_path, content, "KD")
    read.load()
    assert torch.equal(read.built.student.again.weight, read.built.student.logits.weight)
    job(tmp_path, content, "KD").train(resume=True)


def test_a_network_whose_state_is_no_tensor_is_told_before_training(tmp_path):
    content = OWN.replace("small:Everything", "small:Stateful")
    with pytest.raises(RecipeError, match="Stateful has '_extra_state' .* make it a buffer"):
        job(tmp_path, content, "KD").train()
    assert not (tmp_path / "runs").exists()


def replaced(monkeypatch, name, change):
    """Change one split of the reader's data."""
    make = small.make_data

    def make_data(size: int = 40, *, seed: int) -> Splits:
        parts = vars(make(size, seed=seed)).copy()
        return Splits(**{**parts, name: change(parts[name])})

    monkeypatch.setattr(small, "make_data", make_data)


def other_labels(split):
    return Split(split.images, 4 - split.labels, split.base)


def other_pixels(split):
    return Split(split.images + 1, split.labels, split.base)


def other_code(monkeypatch, cls=small.Everything):
    forward = cls.forward
    monkeypatch.setattr(cls, "forward", lambda self, images: forward(self, images).sin())


@pytest.fixture
def of_own_code(tmp_path):
    job(tmp_path, TRAINED, "KD").train()
    return tmp_path


@pytest.mark.parametrize("change", [other_labels, other_pixels])
@pytest.mark.parametrize(("split", "said"), [("train", "training"), ("test", "test")])
def test_weights_of_other_data_are_refused_where_the_recipe_is_the_same(
    of_own_code, monkeypatch, split, said, change
):
    replaced(monkeypatch, split, change)
    said = rf"what it names has changed \(other {said} data\): undo that, or name another --folder"
    with pytest.raises(RecipeError, match=f"teacher.safetensors .*{said}"):
        job(of_own_code, TRAINED, "KD").load()
    with pytest.raises(RecipeError, match=f"teacher.safetensors .*{said}"):
        job(of_own_code, TRAINED, "labels").train()
    (of_own_code / "own").mkdir()
    monkeypatch.undo()
    job(of_own_code / "own", OWN, "KD").train()
    replaced(monkeypatch, split, change)
    with pytest.raises(RecipeError, match=f"student.safetensors .*{said}"):
        job(of_own_code / "own", OWN, "KD").load()


def test_weights_of_a_network_whose_code_was_changed_are_refused(of_own_code, monkeypatch):
    other_code(monkeypatch)
    for act in (
        job(of_own_code, TRAINED, "KD").load,
        job(of_own_code, TRAINED, "labels").train,
    ):
        with pytest.raises(RecipeError, match="teacher.*the network answers other numbers"):
            act()


def test_a_student_is_refused_whose_own_code_or_teacher_was_changed(tmp_path, monkeypatch):
    content = OWN.replace("small:Everything", "small:Shared").replace(
        "[methods]", '[methods]\nlabels = [{ loss = "labels" }]'
    )
    for method in ("KD", "labels"):
        job(tmp_path, content, method).train()
    with monkeypatch.context() as patch:
        other_code(patch, small.Shared)
        with pytest.raises(RecipeError, match=r"student.* \(the network answers other numbers\)"):
            job(tmp_path, content, "KD").load()
    with torch.random.fork_rng():
        other = small.Everything(5)
    monkeypatch.setattr(small, "trained_teacher", lambda classes: other)
    with pytest.raises(RecipeError, match=r"student.* \(another teacher\)"):
        job(tmp_path, content, "KD").load()
    job(tmp_path, content, "labels").load()  # which had none


@pytest.mark.parametrize("file", ["teacher.safetensors", "KD-0/student.safetensors"])
def test_answers_may_differ_by_the_rounding_of_another_machine(of_own_code, file):
    path = of_own_code / "runs" / file
    with safe_open(path, "pt") as opened:
        note = json.loads(opened.metadata()["made by"])
    answers = note["network"]["answers"]
    assert len(answers) == 4 * 5
    for factor, fits in ((1 + 1e-5, True), (1.05, False)):
        note["network"]["answers"] = [factor * number for number in answers]
        save_file(load_file(path), path, metadata={"made by": json.dumps(note)})
        with nullcontext() if fits else pytest.raises(RecipeError, match="other numbers"):
            job(of_own_code, TRAINED, "KD").load()


def with_label(number):
    def change(split):
        return Split(
            split.images, split.labels.index_fill(0, torch.tensor([7]), number), split.base
        )

    return change


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda split: None, "is a NoneType: expected a Split"),
        (lambda split: split[:0], "is 0 images in a Tensor: expected a Split"),
        (with_label(5), "cannot be measured.*: labels go from 0 to 5, but 5 classes"),
        (with_label(-1), "cannot be measured.*: labels go from -1 to 4"),
        (
            lambda split: Split(split.images[..., :3], split.labels, split.base),
            "?(cannot be measured.*)?: mat1 and mat2",
        ),
    ],
)
def test_what_cannot_be_measured_is_told_before_a_teacher_is_trained(
    tmp_path, monkeypatch, split, change, said
):
    replaced(monkeypatch, split, change)
    with pytest.raises(RecipeError, match=f"{split} {said}"):
        job(tmp_path, TRAINED, "KD").train()
    assert not (tmp_path / "runs").exists()


def test_a_training_is_tried_with_its_own_augmentation(tmp_path, monkeypatch):
    for name in ("train", "validation", "test"):
        replaced(
            monkeypatch,
            name,
            lambda split: Split(split.images.flatten(1), split.labels, split.base),
        )
    job(tmp_path, TRAINED, "KD").train()
    augmented = "epochs = 1\naugment = 'crop-flip'"
    (tmp_path / "other").mkdir()
    for table, place in (("[training]", "method 'KD'"), ("[teacher_training]", "teacher_training")):
        content = TRAINED.replace(f"{table}\nepochs = 1", f"{table}\n{augmented}")
        with pytest.raises(RecipeError, match=f"{place}: cannot begin: .* shape .B, C, H, W"):
            job(tmp_path / "other", content, "KD").train()
    assert not (tmp_path / "other" / "runs").exists()


def test_batches_of_one_image_are_told_before_a_teacher_is_trained(tmp_path):
    content = TRAINED.replace(
        '[student]\nmodel = "tests.recipes.small:Everything',
        '[student]\nmodel = "tests.recipes.small:Normalized',
    )
    content = content.replace("[training]\n", "[training]\nbatch_size = 1\n")
    with pytest.raises(RecipeError, match="method 'KD': cannot begin: .* one sample at a time"):
        job(tmp_path, content, "KD").train()
    assert not (tmp_path / "runs").exists()


def test_a_teacher_of_other_classes_is_not_compared_with_its_student(tmp_path, monkeypatch):
    content = OWN.replace('"soft_target_loss"', '"attention_transfer_loss", layers = ["features"]')
    monkeypatch.setattr(small, "trained_teacher", lambda classes: small.Everything(9))
    here = job(tmp_path, content, "KD")
    here.train()
    measured = here.measure()
    assert list(measured) == ["accuracy", "parameters", "teacher_parameters"]
    test = here.built.data.test
    assert measured["accuracy"] == accuracy(predict(here.built.student, test.images), test.labels)
    # One that was trained on these labels here has learned them.
    trained = TRAINED.replace(
        '"soft_target_loss"', '"attention_transfer_loss", layers = ["features"]'
    )
    trained = trained.replace("small:Everything", "small:trained_teacher", 1)
    (tmp_path / "trained").mkdir()
    here = job(tmp_path / "trained", trained, "KD")
    here.train()
    assert here.measure()["teacher_accuracy"] == accuracy(
        predict(here.built.teacher, test.images), test.labels
    )
    assert "agreement" not in here.measure()
