import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.nn import Linear
from typer import Exit
from typer.testing import CliRunner

import kdlearn
from kdlearn.cli import _told, app
from kdlearn.experiments import EXPERIMENTS
from kdlearn.recipes import shipped
from kdlearn.store import AttentionMap
from kdlearn.training import fit
from tests.experiments.quick import Quick
from tests.forked import python
from tests.recipes.small import RECIPE

TWO = (torch.eye(2), torch.arange(2))


def kd(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], terminal_width=300)


def shown(result) -> str:
    return " ".join(result.output.split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "recipe.toml").write_text(
        RECIPE.replace("[methods]", "[cache]\ncopies = 2\n[methods]")
    )
    words = ("--method", "KD+AT", "--folder", folder / "runs", "--no-progress")
    result = kd("train", folder / "recipe.toml", *words)
    assert result.exit_code == 0, result.output
    assert "soft_target_loss" in result.output and "teacher_accuracy" in result.output
    return folder


def run(folder: Path, command: str, *more: object, method: str = "KD+AT"):
    words = [command, folder / "recipe.toml", "--method", method, "--folder", folder / "runs"]
    if command != "evaluate":
        words.append("--no-progress")
    return kd(*words, *more)


def test_evaluation_repeats_the_measures_and_quotes_what_was_published(trained):
    before = (trained / "runs" / "KD+AT-0" / "test.json").read_text()
    result = run(trained, "evaluate")
    assert result.exit_code == 0 and "published: 12.3 (nobody)" in result.output
    assert (trained / "runs" / "KD+AT-0" / "test.json").read_text() == before


def test_a_second_call_goes_on_with_resume_alone(trained):
    refused = run(trained, "train")
    assert refused.exit_code == 2 and "go on with --resume" in shown(refused)
    assert run(trained, "train", "--resume").exit_code == 0


def test_a_checkpoint_that_does_not_fit_is_told_in_the_words_of_a_terminal(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "again")
    recipe = tmp_path / "again" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 2", "epochs = 3"))
    other = run(tmp_path / "again", "train", "--resume")
    assert re.search(r"another run.*epochs 2 there, 3 here.*Name another --folder", shown(other))
    run_folder = tmp_path / "again" / "runs" / "KD+AT-0"
    last = sorted((run_folder / "checkpoints").glob("step-*"))[-1]
    shutil.copytree(last, last.with_name("step-00000001"))
    (last / "model.safetensors").write_bytes(b"")
    damaged = run(tmp_path / "again", "train", "--resume")
    assert other.exit_code == damaged.exit_code == 2
    assert "is damaged" in shown(damaged) and "move this one away and run" in shown(damaged)
    assert "resume=" not in other.output + damaged.output


def test_another_schedule_is_told_without_its_insides_and_no_seed_is_advised(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "again")
    recipe = tmp_path / "again" / "recipe.toml"
    recipe.write_text(recipe.read_text().replace("epochs = 2", "epochs = 2\nlearning_rate = 0.1"))
    said = shown(run(tmp_path / "again", "train", "--resume"))
    assert re.search("other optimizer; other schedule. Name another --folder.$", said), said


@pytest.mark.parametrize(
    ("fails", "said"),
    [
        (
            lambda: AttentionMap().restore(torch.ones(1, 4, 4), torch.ones(1, 3, 2, 2)),
            "before the power. A recipe stores no smaller map: leave [cache] out.",
        ),
        (
            lambda: fit(Linear(2, 2), TWO, validation=(TWO[0], TWO[0])),
            "A recipe measures accuracy: give class numbers.",
        ),
    ],
)
def test_advice_that_no_recipe_can_follow_is_put_in_other_words(fails, said, capsys):
    with pytest.raises(Exit), _told(lambda: ""):
        fails()
    assert said in capsys.readouterr().err


def test_the_store_tells_its_size(trained):
    result = run(trained, "cache")
    assert result.exit_code == 0 and re.search(r"store-KD\+AT: 120 rows, \d+ bytes", shown(result))


def test_a_store_of_other_images_is_refused(trained, tmp_path):
    (tmp_path / "recipe.toml").write_text(
        (trained / "recipe.toml").read_text().replace("images = 60", "images = 50")
    )
    words = ("--method", "KD+AT", "--folder", trained / "runs", "--no-progress")
    result = kd("cache", tmp_path / "recipe.toml", *words)
    assert result.exit_code == 2
    assert re.search("store-KD.* was made with .*data.*: use another folder", shown(result))


def test_runs_lie_in_a_folder_of_the_recipes_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(RECIPE)
    assert kd("train", "mine.toml", "--method", "student", "--no-progress").exit_code == 0
    assert (tmp_path / "runs" / "mine" / "student-0" / "student.safetensors").is_file()


def test_your_own_modules_are_found_where_the_command_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("my_nets.py").write_text(
        "from kdlearn.models import SmallCNN\ndef make():\n    return SmallCNN(3)\n"
    )
    Path("own.toml").write_text(
        RECIPE.replace('model = "small-cnn"\nwidth = 2', 'model = "my_nets:make"')
    )
    result = kd("train", "own.toml", "--method", "student", "--no-progress")
    assert result.exit_code == 0, result.output


def test_the_version_and_the_recipes_are_listed():
    assert kd("--version").output.strip() == f"kdlearn {kdlearn.__version__}"
    lines = kd("recipes").output.splitlines()
    assert [line.split()[0] for line in lines] == shipped()
    assert all(len(line.split()) > 4 for line in lines)


def test_experiments_are_listed_with_their_methods():
    listed = kd("experiment", "--list").output
    for name, module in EXPERIMENTS.items():
        assert f"{name}: " in listed
        assert all(f"    {method}\n" in listed for method in module.METHODS)


def test_an_experiment_is_run_into_a_table_that_a_second_call_completes(tmp_path, monkeypatch):
    quick = Quick()
    monkeypatch.setitem(EXPERIMENTS, "quick", quick)
    words = ["experiment", "quick", "--output", tmp_path / "quick.csv", "--no-progress"]
    first = kd(*words, "--seeds", "0,1", "--methods", "scratch", "--on", "validation")
    assert first.exit_code == 0 and "quick.csv has 4 rows" in shown(first)
    alone = pd.read_csv(tmp_path / "quick.csv").iloc[[1, 3]]
    for _ in range(2):
        assert kd(*words, "--seeds", "0,1", "--on", "validation").exit_code == 0
    assert quick.trained == [
        *((seed, method) for seed in (0, 1) for method in ("teacher", "scratch")),
        *((seed, method) for seed in (0, 1) for method in ("teacher", *quick.METHODS)),
    ]
    table = pd.read_csv(tmp_path / "quick.csv")
    assert list(table["method"]) == ["teacher", "KD", "KD, twice", "scratch"] * 2
    assert table.iloc[[3, 7]].values.tolist() == alone.values.tolist()


# What each command refuses, and how it says so; RECIPE is a recipe with ``old`` replaced by
# ``new``, HERE a folder.
REFUSED = [
    ("trian RECIPE --method KD", "No such command 'trian'.*Did you mean 'train'", "", ""),
    ("train warped --method KD", "no recipe 'warped'.*one of .*warped-digits", "", ""),
    ("train RECIPE --method kd", "no method 'kd'.*choose from 'student', 'KD'", "", ""),
    ("train RECIPE --method KD --seed -1", "Invalid value for '--seed'", "", ""),
    (f"train RECIPE --method KD --seed {2**63}", "Invalid value for '--seed'", "", ""),
    ("train RECIPE --method KD", "training.epochs: 0 does not fit", "epochs = 2", "epochs = 0"),
    ("train RECIPE --method AT", "no module 'gruop1'.*close are 'group1'", "KD+AT", "AT"),
    ("train RECIPE --method KD --folder HERE/file --no-progress", "written to .*file", "", ""),
    ("cache RECIPE --method KD", r"the recipe has no \[cache\] table", "", ""),
    ("evaluate RECIPE --method KD --folder HERE", "teacher.safetensors is not there", "", ""),
    ("experiment", "name an experiment that `kdlearn experiment --list` shows", "", ""),
    ("experiment warped-digits", "a table: --output FILE", "", ""),
    ("experiment warped --output HERE/a.csv", "no experiment 'warped'.*choose from", "", ""),
    ("experiment warped-digits --output HERE/a.csv --seeds 0-4", "seeds are '0-4'.*commas", "", ""),
    (
        "experiment warped-digits --output HERE/a.csv --seeds 1,1",
        r"each once, got \[1, 1\]",
        "",
        "",
    ),
    ("experiment warped-digits --output HERE/a.csv --methods a,b", "no method 'a'", "", ""),
    ("experiment warped-digits --output HERE/a.csv --on train", "or 'test', got 'train'", "", ""),
    ("experiment warped-digits --output HERE/no/a.csv", "no folder .*no: make it first", "", ""),
    ("experiment warped-digits --output HERE", "is a folder: name a file in it, such as", "", ""),
]


@pytest.mark.parametrize(("words", "said", "old", "new"), REFUSED)
def test_a_mistake_ends_the_command_with_a_sentence(words, said, old, new, tmp_path, monkeypatch):
    content = RECIPE.replace('"group1"', '"gruop1"') if "AT" in words else RECIPE
    (tmp_path / "recipe.toml").write_text(content.replace(old, new) if old else content)
    (tmp_path / "file").write_text("kept")
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    result = kd(*words.replace("RECIPE", "recipe.toml").replace("HERE", str(tmp_path)).split())
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert re.search(said, shown(result)), shown(result)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name == "nt", reason="Windows has other signals")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_says_how_it_goes_on(number, code, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("epochs = 2", "epochs = 100000"))
    words = ["train", "recipe.toml", "--method", "KD", "--no-progress"]
    command = ["-c", "from kdlearn.cli import main; main()", *words]
    process = python(command, tmp_path / "log", folder=tmp_path)
    try:
        teacher = tmp_path / "runs" / "recipe" / "teacher.safetensors"
        while not teacher.exists() and process.poll() is None:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(number)
        status = process.wait()
    finally:
        process.kill()
    said = (tmp_path / "log").read_text()
    assert status == code, said
    saved = re.search(r"stopped; (.*step-\d+) is saved: go on with --resume", said)
    assert saved and (tmp_path / saved[1]).is_dir(), said
    assert "Traceback" not in said
