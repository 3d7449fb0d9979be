"""The drills where readers write them: in a kernel, with functions that exist in no file."""

from pathlib import Path

import pytest
from jupyter_client.provisioning import local_provisioner
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from kdlearn.drills import find, names
from kdlearn.drills.grader.drill import IMPORTS
from tests.book.forked_kernels import ForkedKernel


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kernel")
    wrong = find("kd-loss").source().replace(', reduction="batchmean"', ', reduction="mean"')
    cells = [
        f"import os\nos.environ['KDLEARN_HOME'] = {str(folder)!r}\n{IMPORTS}"
        "from kdlearn.drills import check, hint, status",
        find("kd-loss").source() + "\ncheck('kd-loss', kd_loss)",
        wrong + "\ncheck('kd-loss', kd_loss)",
        "def kd_loss(student_logits, teacher_logits, *, temperature):\n    while True: pass\n"
        "check('kd-loss', kd_loss, seconds=2)",
        "def kd_loss(student_logits, teacher_logits, *, temperature):\n    os._exit(1)\n"
        "check('kd-loss', kd_loss)",
        "status()",
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local_provisioner, "launch_kernel", ForkedKernel)
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        resources = {"metadata": {"path": str(folder)}}
        NotebookClient(notebook, timeout=1800, resources=resources).execute()
    return ["".join(o.get("text", "") for o in cell.outputs) for cell in notebook.cells]


def test_a_right_function_passes(outputs):
    assert outputs[1].startswith("kd-loss: 9 of 9 checks passed.")


def test_a_wrong_one_is_named(outputs):
    assert "Diagnosis: your loss is C = 3 times too small" in outputs[2]


def test_the_kernel_survives_an_endless_loop_and_an_exit(outputs):
    assert "no answer after 2 seconds" in outputs[3]
    assert "exit code 1" in outputs[4]
    assert f"1 of {len(names())} solved." in outputs[5]
