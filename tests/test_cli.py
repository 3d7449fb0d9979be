import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from kdlearn.cli import app
from kdlearn.experiments import EXPERIMENTS

RECIPE = """
[data]
name = "warped-digits"
images = 100

[teacher]
model = "small-cnn"
width = 4

[student]
model = "small-cnn"
width = 2

[teacher_training]
epochs = 1
batch_size = 256

[training]
epochs = 3
augment = "shift"

[cache]
copies = 2

[methods]
student = [{ loss = "labels" }]
"KD+AT" = [
  { loss = "soft_target_loss" },
  { loss = "attention_transfer_loss", weight = 10, layers = ["group1"] },
]

[published]
source = "nobody"
"KD+AT" = "12.3"
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "recipe.toml").write_text(RECIPE)
    result = run(folder, "train")
    assert result.exit_code == 0, result.output
    return folder


def run(folder: Path, command: str, *more: str, method: str = "KD+AT"):
    words = [command, str(folder / "recipe.toml"), "--method", method, "--folder", str(folder)]
    if command != "evaluate":
        words.append("--no-progress")
    return CliRunner().invoke(app, [*words, *more])


def test_training_leaves_a_student_its_history_and_its_measures(trained):
    run_folder = trained / "KD+AT-0"
    history = json.loads((run_folder / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert list(history[0]["parts"]) == ["soft_target_loss", "attention_transfer_loss"]
    measured = json.loads((run_folder / "test.json").read_text())
    assert 0 < measured["accuracy"] < 1 and measured["teacher_accuracy"] > 0.2
    assert measured["parameters"] < measured["teacher_parameters"]
    assert load_file(run_folder / "student.safetensors")["classifier.weight"].shape == (10, 32)
    assert list((trained / "store-KD+AT").glob("*.safetensors"))


def test_evaluation_repeats_the_measures_and_quotes_what_was_published(trained):
    before = (trained / "KD+AT-0" / "test.json").read_text()
    result = run(trained, "evaluate")
    assert result.exit_code == 0
    assert "published: 12.3 (nobody)" in result.output
    assert (trained / "KD+AT-0" / "test.json").read_text() == before


def test_a_second_call_needs_resume_and_then_trains_nothing(trained):
    weights = (trained / "KD+AT-0" / "student.safetensors").read_bytes()
    refused = run(trained, "train")
    assert refused.exit_code == 2 and "pass resume=True" in refused.output
    assert run(trained, "train", "--resume").exit_code == 0
    assert (trained / "KD+AT-0" / "student.safetensors").read_bytes() == weights


def test_the_store_tells_its_size(trained):
    result = run(trained, "cache")
    assert result.exit_code == 0 and "200 rows" in result.output


def test_mistakes_are_sentences_and_not_traces(trained, tmp_path):
    for result, said in (
        (run(trained, "train", method="kd"), "no method 'kd': choose from 'student', 'KD+AT'"),
        (run(trained, "evaluate", "--seed", "7"), "student.safetensors is not there: run"),
        (run(tmp_path, "train"), "cannot be read: No such file"),
        (run(trained, "train", "--seed", "-1"), "Invalid value"),
    ):
        assert result.exit_code == 2
        assert said in result.output and "Traceback" not in result.output


def test_a_foreign_teacher_is_refused(trained, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    save_file({"weight": torch.ones(1)}, tmp_path / "teacher.safetensors")
    result = run(tmp_path, "train")
    assert result.exit_code == 2 and "does not hold this recipe's network" in result.output


def test_a_stale_store_is_refused(trained, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("images = 100", "images = 90"))
    result = CliRunner().invoke(
        app,
        [
            "cache",
            str(tmp_path / "recipe.toml"),
            "--method",
            "KD+AT",
            "--folder",
            str(trained),
            "--no-progress",
        ],
    )
    assert result.exit_code == 2 and "made with another data" in result.output


def test_an_experiment_is_run_into_a_table(tmp_path, monkeypatch):
    class Quick:
        METHODS = ("scratch",)

        @staticmethod
        def run_seed(seed, *, methods, on):
            yield {"seed": seed, "method": "teacher", "accuracy": 90.0 + seed}
            yield {"seed": seed, "method": "scratch", "accuracy": 80.0 + seed}

    monkeypatch.setitem(EXPERIMENTS, "quick", Quick)
    output = tmp_path / "quick.csv"
    words = ["experiment", "quick", "--output", str(output), "--seeds", "0,1"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert len(output.read_text().splitlines()) == 5
    for more, said in (
        (["quick", "--seeds", "a"], "expected whole numbers with commas"),
        (["slow"], "no experiment 'slow'"),
        (["quick", "--on", "train"], "measure on 'validation' or 'test', got 'train'"),
    ):
        result = CliRunner().invoke(app, ["experiment", *more, "--output", str(output)])
        assert said in result.output
        assert result.exit_code == 2
    lost = CliRunner().invoke(app, ["experiment", "quick", "--output", str(tmp_path / "no" / "a")])
    assert lost.exit_code == 2 and "make it first" in lost.output
