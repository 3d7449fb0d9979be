"""Whatever a solution does, the session that asked gets a sentence."""

import contextlib
import ctypes
import functools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from kdlearn.drills import find
from kdlearn.drills.grader.run import WORKER, run

KD = find("kd-loss")


def right(s, t, *, temperature):
    print("loss")
    q, p = (s / temperature).log_softmax(1), (t.detach() / temperature).softmax(1)
    return temperature**2 * F.kl_div(q, p, reduction="batchmean")


def graded(solution, seconds=60):
    return run(KD, solution, seed=1, seconds=seconds)


def test_a_right_solution_passes_and_its_printing_is_told():
    report = graded(right)
    assert report.passed
    (note,) = report.notes
    assert "printed" in note and note.endswith("the first: loss")


def test_helpers_and_modules_of_the_reader_come_along():
    def helper(z, temperature):
        return (z / temperature).log_softmax(1)

    def solution(s, t, *, temperature):
        q, p = helper(s, temperature), helper(t.detach(), temperature)
        return temperature**2 * F.kl_div(q, p, reduction="batchmean", log_target=True)

    assert graded(solution).passed


def test_an_endless_loop_is_stopped():
    def solution(s, t, *, temperature):
        while True:
            pass

    (diagnosis,) = graded(solution, seconds=2).diagnoses
    assert diagnosis.id == "too-slow"
    assert diagnosis.message.startswith("no answer after 2 seconds")


@pytest.mark.parametrize(
    ("solution", "words"),
    [
        (lambda s, t, *, temperature: os._exit(3), "exit code 3"),
        (lambda s, t, *, temperature: ctypes.string_at(0), "signal SIGSEGV"),
        (lambda s, t, *, temperature: os.kill(os.getpid(), 9), "signal SIGKILL"),
    ],
)
def test_the_end_of_the_process_is_told(solution, words):
    (diagnosis,) = graded(solution).diagnoses
    assert diagnosis.id == "process-ended"
    assert words in diagnosis.message


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux obeys the limit")
@pytest.mark.parametrize(
    "solution",
    [
        lambda s, t, *, temperature: torch.ones(10**10),
        lambda s, t, *, temperature: [0.0] * 10**10,
    ],
)
def test_a_huge_allocation_is_refused(solution):
    assert "more memory" in graded(solution).diagnoses[0].message


def test_an_exit_is_told():
    assert "sys.exit" in graded(lambda s, t, *, temperature: sys.exit(0)).diagnoses[0].message


def test_a_question_to_the_reader_gets_no_answer():
    (diagnosis,) = graded(lambda s, t, *, temperature: input()).diagnoses
    assert diagnosis.id == "raises"
    assert "EOFError" in diagnosis.message


def test_what_cannot_be_sent_is_told(tmp_path):
    with open(tmp_path / "log", "w") as log:
        report = graded(lambda s, t, *, temperature: log.write("x"))
    assert report.diagnoses[0].id == "not-loaded"
    assert "cannot be sent" in report.diagnoses[0].message


def test_an_empty_function_needs_no_process(monkeypatch):
    def solution(s, t, *, temperature):
        "Later."

    monkeypatch.setattr(WORKER, "ask", None)
    assert not graded(solution).written


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def kd_loss(:", "(line 1): SyntaxError"),
        ("import math\nmath.nothing\n", "(line 2): AttributeError"),
        ("def other(): pass", "NameError: there is no function kd_loss in it"),
        ("import sys\nsys.exit(4)", "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told(tmp_path, text, words):
    file = tmp_path / "kd_loss.py"
    file.write_text(text)
    (diagnosis,) = graded(file).diagnoses
    assert diagnosis.id == "not-loaded"
    assert words in diagnosis.message


def test_a_file_is_graded(tmp_path):
    file = tmp_path / "kd_loss.py"
    file.write_text(
        f"from torch.nn import functional as F\nimport torch\n{KD.source()}".replace(
            "Tensor", "torch.Tensor"
        )
    )
    assert graded(file).passed


def test_a_file_finds_the_modules_beside_it(tmp_path):
    (tmp_path / "beside.py").write_text("def halved(x):\n    return x / 2\n")
    file = tmp_path / "kd_loss.py"
    file.write_text(
        "from beside import halved\n\ndef kd_loss(s, t, *, temperature):\n    return "
        "halved(s.sum())\n"
    )
    assert graded(file).diagnoses[0].id == "narrowed-down"


def test_a_function_under_a_decorator_is_graded_as_itself():
    assert graded(functools.lru_cache(right)).passed
    assert graded(torch.compile(right)).passed


def test_a_scripted_function_is_graded():
    assert run(find("activation-map"), scripted, seed=1, seconds=60).passed


@torch.jit.script
def scripted(features: torch.Tensor, p: float) -> torch.Tensor:
    energy = features.abs().pow(p).sum(1)
    return energy / energy.square().sum([1, 2], keepdim=True).clamp(min=1e-24).sqrt()


@pytest.mark.skipif(sys.platform != "linux", reason="a fork of a warm process")
def test_the_worker_stays_and_nothing_is_left_of_a_check():
    def starts_others(s, t, *, temperature):
        subprocess.Popen(["sleep", "600.25"], start_new_session=True)
        threading.Thread(target=time.sleep, args=(600,)).start()
        return right(s, t, temperature=temperature)

    before = WORKER._started().pid
    assert graded(starts_others).passed
    assert graded(lambda s, t, *, temperature: os._exit(1)).diagnoses[0].id == "process-ended"
    assert WORKER._started().pid == before
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert not any(b"600.25" in command for command in commands)


def test_a_forged_report_is_no_report():
    def forger(s, t, *, temperature):
        text = json.dumps({"token": "x", "report": {"drill": "kd-loss"}}).encode()
        for number in range(3, 30):
            with contextlib.suppress(OSError):
                os.write(number, text)
        os._exit(0)

    assert graded(forger).diagnoses[0].id == "process-ended"


def test_an_interrupt_is_a_sentence(monkeypatch):
    def interrupted(self, job):
        raise KeyboardInterrupt

    monkeypatch.setattr(type(WORKER), "ask", interrupted)
    assert graded(right).diagnoses[0].id == "interrupted"
