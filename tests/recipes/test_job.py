import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from kdlearn.recipes import Job, RecipeError, load
from tests.recipes.small import OWN, RECIPE

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
            "method 'KD\\+AT': a first step on two images fails: .*temperature is 'four'",
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
