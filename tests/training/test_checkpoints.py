import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from kdlearn.core.files import read_json, write_json
from kdlearn.training import checkpoints as module
from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from tests.forked import python

ROOT = Path(__file__).parents[2]


def test_a_tree_comes_back_as_it_was(tmp_path):
    tied = torch.arange(3.0)
    tree = {
        "list": [1, 2.5, None, True, "x"],
        "tuple": (1, (2, tied)),
        "numbers": {0: {"step": torch.tensor(3)}, 7: tied},
        "$odd": {"a": tied.to(torch.bfloat16), "empty": torch.zeros(0, 2)},
        "large": [1e-300, 0.1, 2**80],
        "complex": [torch.polar(tied, tied), torch.polar(tied, tied).to(torch.complex128).conj()],
    }
    saved = Checkpoints(tmp_path).save(1, {"w": tied, "tied": tied}, tree)
    back = Checkpoints(tmp_path).load(saved)
    assert repr(back["training"]) == repr(tree)
    assert torch.equal(back["model"]["tied"], tied) and back["step"] == 1


def test_only_the_newest_stay(tmp_path):
    checkpoints = Checkpoints(tmp_path, every_steps=2, keep=3)
    for step in range(2, 14, 2):
        checkpoints.save(step, {"w": torch.ones(1)}, {})
    assert [path.name for path in checkpoints.saved()] == [
        "step-00000008",
        "step-00000010",
        "step-00000012",
    ]


def test_two_stay_in_a_folder_that_is_made_with_those_above(tmp_path):
    checkpoints = Checkpoints(tmp_path / "runs" / "a")
    with checkpoints.held():
        for step in (1, 2, 3):
            checkpoints.save(step, {"w": torch.ones(1)}, {})
    assert [path.name for path in checkpoints.saved()] == ["step-00000002", "step-00000003"]


def test_minutes_alone_decide_too():
    checkpoints = Checkpoints("unused", every_steps=None, every_minutes=2)
    assert not checkpoints.is_due(1000, 119) and checkpoints.is_due(1, 120)
    assert Checkpoints("unused", every_steps=5, every_minutes=None).is_due(10, 0)


def test_what_cannot_be_saved_without_pickle_is_named(tmp_path):
    with pytest.raises(TypeError, match="a object at 'optimizer/hook'"):
        Checkpoints(tmp_path).save(1, {}, {"optimizer": {"hook": object()}})
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_last_good_one(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    good = checkpoints.save(1, {"w": torch.ones(2)}, {})

    def full(tensors, path):
        Path(path).write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left.*step-00000001 is whole and stays"):
        checkpoints.save(2, {"w": torch.zeros(2)}, {})
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]
    assert torch.equal(checkpoints.load(good)["model"]["w"], torch.ones(2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a limit on the size of files")
def test_a_real_limit_on_file_sizes_is_told(tmp_path):
    folder = tmp_path / "run"
    script = (
        "import resource, signal, torch\n"
        "from kdlearn.training.checkpoints import Checkpoints, CheckpointError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10000, 10000))\n"
        f"try: Checkpoints({str(folder)!r}).save(1, {{'w': torch.zeros(100000)}}, {{}})\n"
        "except CheckpointError as error: print('told:', error)\n"
    )
    log = tmp_path / "log"
    python(["-c", script], log, folder=ROOT).wait()
    assert "told: the checkpoint of step 1 could not be written" in log.read_text()
    assert list(folder.iterdir()) == []


def test_a_damaged_checkpoint_is_refused_and_an_older_one_named(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    older = checkpoints.save(1, {"w": torch.ones(2)}, {})
    newer = checkpoints.save(2, {"w": torch.ones(2)}, {})
    content = bytearray((newer / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (newer / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is damaged.*older one is .*step-00000001"):
        checkpoints.load(newer)
    assert checkpoints.load(older)["step"] == 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: (folder / "state.json").write_text("{"), "cannot be read"),
        (lambda folder: write_json(folder / "state.json", []), "is not a"),
        (lambda folder: write_json(folder / "state.json", {"format": "other"}), "is not a"),
        (lambda folder: (folder / "state.json").unlink(), "state.json is not there"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors is not there"),
        (lambda folder: (folder / "training.safetensors").write_bytes(b"x"), "is damaged"),
    ],
)
def test_a_foreign_or_broken_folder_is_told(tmp_path, change, said):
    saved = Checkpoints(tmp_path).save(1, {"w": torch.ones(2)}, {})
    change(saved)
    with pytest.raises(CheckpointError, match=said):
        Checkpoints(tmp_path).load(saved)


def test_a_format_that_lists_other_tensors_is_told(tmp_path):
    saved = Checkpoints(tmp_path).save(1, {"w": torch.ones(2)}, {})
    state = read_json(saved / "state.json")
    state["model"]["v"] = {"$tensor": "v"}
    write_json(saved / "state.json", state)
    with pytest.raises(CheckpointError, match="cannot be read"):
        Checkpoints(tmp_path).load(saved)


def test_any_flipped_bit_of_the_state_is_told(tmp_path):
    saved = Checkpoints(tmp_path).save(3, {"w": torch.ones(2)}, {"at": {"step": 3}, "list": [1]})
    path = saved / "state.json"
    whole = path.read_bytes()
    for place in range(len(whole) - 1):
        content = bytearray(whole)
        content[place] ^= 1 << (place % 7)
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            Checkpoints(tmp_path).load(saved)


@pytest.mark.parametrize(
    "settings", [{"every_steps": 0}, {"keep": 0}, {"every_minutes": -1}, {"every_steps": True}]
)
def test_intervals_out_of_range_are_told(settings):
    with pytest.raises((TypeError, ValueError), match=f"{next(iter(settings))} is"):
        Checkpoints("run", **settings)


def test_what_a_killed_run_left_is_swept(tmp_path):
    (tmp_path / ".partial-step-00000007-123").mkdir()
    with Checkpoints(tmp_path).held():
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), np.float64(0.1), np.int64(3), np.bool_(True), np.arange(3.0), np.eye(2) > 0],
)
def test_numbers_and_arrays_of_numpy_come_back_as_they_were(tmp_path, value):
    checkpoints = Checkpoints(tmp_path)
    back = checkpoints.load(checkpoints.save(1, {}, {"lr": value}))["training"]["lr"]
    assert np.array_equal(back, value)
    assert np.asarray(back).dtype == np.asarray(value).dtype
    assert (np.float32(2) * back).dtype == (np.float32(2) * value).dtype


def test_keys_of_numpy_find_the_same(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    saved = checkpoints.save(1, {}, {"milestones": {np.int64(3): 1, 9: 2}})
    assert checkpoints.load(saved)["training"]["milestones"] == {3: 1, 9: 2}


def test_a_relative_folder_stays_where_it_was_meant(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    checkpoints = Checkpoints("run")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    checkpoints.save(1, {"w": torch.ones(1)}, {})
    assert checkpoints.latest() == tmp_path / "run" / "step-00000001"
    assert list((tmp_path / "other").iterdir()) == []
