"""Reference solutions against the package's losses, which are tested against official code."""

import pytest
import torch
from torch import Generator

from kdlearn import losses, measure
from kdlearn.drills import find
from kdlearn.drills.grader.compare import same
from kdlearn.losses import maps

PAIRS = {
    "kd-loss": lambda c: losses.soft_target_loss(
        c["student_logits"], c["teacher_logits"], temperature=c["temperature"]
    ),
    "kd-total": lambda c: losses.distillation_loss(
        c["student_logits"],
        c["teacher_logits"],
        c["labels"],
        temperature=c["temperature"],
        weight=c["weight"],
    ),
    "decoupled-kd": lambda c: losses.dkd_loss(
        c["student_logits"],
        c["teacher_logits"],
        c["labels"],
        temperature=c["temperature"],
        alpha=c["alpha"],
        beta=c["beta"],
    ),
    "activation-map": lambda c: maps.activation_map(c["features"], p=c["p"]),
    "at-loss": lambda c: losses.attention_transfer_loss(c["student"], c["teacher"]),
    "rkd-angle": lambda c: losses.rkd_angle_loss(c["student"], c["teacher"]),
    "reverse-kl": lambda c: losses.reverse_kl(c["student_logits"], c["teacher_logits"]),
    "token-kd": lambda c: (
        c["temperature"] ** 2
        * losses.forward_kl(
            c["student_logits"],
            c["teacher_logits"],
            mask=c["mask"],
            temperature=c["temperature"],
        )
    ),
    "top-k-kd": lambda c: losses.top_k_kl(
        c["student_logits"], c["teacher_log_probs"], c["indices"], tail="bucket"
    ),
    "generalized-jsd": lambda c: losses.generalized_jsd(
        c["student_logits"], c["teacher_logits"], beta=c["beta"]
    ),
    "fidelity-report": lambda c: {
        "accuracy": measure.accuracy(c["student_logits"], c["labels"]),
        "agreement": measure.agreement(c["student_logits"], c["teacher_logits"]),
        "kl": measure.kl_to_teacher(c["student_logits"], c["teacher_logits"]),
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_a_reference_gives_what_the_package_gives(name):
    drill = find(name)
    for case in drill.cases(Generator().manual_seed(7)):
        if case.get("beta") not in (0, 1):  # where the package has the divergences themselves
            assert same(drill.call(drill.reference, case), PAIRS[name](case))


def test_the_gradient_by_hand_is_autograds():
    drill = find("kd-gradient")
    for case in drill.cases(Generator().manual_seed(7)):
        student = case["student_logits"].clone().requires_grad_()
        losses.soft_target_loss(
            student, case["teacher_logits"], temperature=case["temperature"]
        ).backward()
        assert same(drill.call(drill.reference, case), student.grad)


def test_attention_weights_are_torchs():
    drill = find("attention-weights")
    for case in drill.cases(Generator().manual_seed(7)):
        keys = case["keys"]
        identity = torch.eye(keys.shape[-2], dtype=keys.dtype).expand(*keys.shape[:2], -1, -1)
        attended = torch.nn.functional.scaled_dot_product_attention(
            case["queries"], keys, identity, attn_mask=case["mask"][:, None, None, :]
        )
        assert same(drill.call(drill.reference, case), attended)


def test_attention_over_layers_is_the_package_where_layers_show_one_picture():
    drill, generator = find("at-layers"), Generator().manual_seed(7)
    sizes = [((3, 8, 6), (5, 4, 3)), ((2, 4, 4), (2, 8, 8)), ((4, 5, 7), (3, 5, 7))]
    student, teacher = (
        [torch.randn(2, *pair[side], dtype=torch.float64, generator=generator) for pair in sizes]
        for side in (0, 1)
    )
    expected = sum(map(losses.attention_transfer_loss, student, teacher))
    assert same(drill.call(drill.reference, {"student": student, "teacher": teacher}), expected)
