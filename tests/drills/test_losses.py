"""Reference solutions against the package's losses, which are tested against official code."""

import math

import pytest
import torch
from torch import Generator

from kdlearn import losses, measure
from kdlearn.drills import find
from kdlearn.drills.grader.compare import same
from kdlearn.losses import maps
from kdlearn.models.linear_attention import LinearScores

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


def test_the_step_on_drawn_tokens_is_k1_in_value_and_k2_in_gradient():
    drill = find("opd-step")
    for case in drill.cases(Generator().manual_seed(7)):
        logits = case["student_logits"].clone().requires_grad_()
        loss = drill.call(drill.reference, case | {"student_logits": logits})
        (gradient,) = torch.autograd.grad(loss, logits)
        # A teacher that says what it gave to the drawn token, and the rest of another one.
        tokens, mask = case["tokens"][:, 1:], case["written"][:, 1:]
        given = case["teacher_log_probs"][:, 1:, None]
        teacher = torch.full_like(logits[:, :-1], 0.0)
        others = (torch.log1p(-given.exp()) - math.log(teacher.shape[-1] - 1)).expand_as(teacher)
        teacher = others.scatter(-1, tokens[..., None], given)
        for estimator, what in (("k1", loss), ("k2", gradient)):
            leaf = case["student_logits"].clone().requires_grad_()
            value = losses.sampled_reverse_kl(
                leaf[:, :-1], teacher, tokens, estimator=estimator, mask=mask
            )
            same_as = value if estimator == "k1" else torch.autograd.grad(value, leaf)[0]
            assert same(what, same_as)


def test_the_gradients_of_the_estimators_are_none_reverse_and_forward():
    drill = find("k-estimators")
    for case in drill.cases(Generator().manual_seed(7)):
        found = drill.call(drill.reference, case)
        for name, loss in (("k2", losses.reverse_kl), ("k3", losses.forward_kl)):
            leaf = case["student_logits"].clone().requires_grad_()
            value = loss(leaf[None], case["teacher_logits"][None])
            assert same(found[name][1], torch.autograd.grad(value, leaf)[0])
        exact = losses.reverse_kl(case["student_logits"][None], case["teacher_logits"][None])
        assert same(found["k1"], (exact, torch.zeros_like(found["k1"][1])))
        assert same(found["k3"][0], exact) and found["k2"][0] > 0


def test_with_a_bucket_the_best_student_has_the_teachers_mass_and_without_it_a_part_in_e():
    drill = find("tail-bucket")
    case = drill.cases(Generator().manual_seed(7))[0]
    mass = case["teacher_log_probs"].exp().sum(1)
    for wrong, wanted in (((), mass), (("tail-ignored",), mass / math.e)):
        logits = torch.zeros_like(case["student_logits"], requires_grad=True)
        optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

        def closure(wrong=wrong, logits=logits, optimizer=optimizer):
            optimizer.zero_grad()
            loss = drill.call(drill.member(wrong), case | {"student_logits": logits})
            loss.backward()
            return loss

        optimizer.step(closure)
        found = logits.detach().softmax(1).gather(1, case["indices"]).sum(1)
        assert torch.allclose(found, wanted, atol=1e-4)


def test_what_is_kept_and_what_is_drawn_anew_make_up_the_target():
    drill = find("speculative-acceptance")
    for case in drill.cases(Generator().manual_seed(7)):
        p, q = case["target"][:2], case["draft"][:1]
        written = torch.zeros_like(p[0])
        for token, chance in enumerate((p[0] / q[0]).clamp(max=1)):
            given = {"target": p, "draft": q, "tokens": torch.tensor([token])}
            kept, _ = drill.call(drill.reference, given | {"uniforms": 0.999 * chance[None]})
            assert kept == 1
            written[token] += q[0, token] * chance
            if chance < 1:
                kept, anew = drill.call(drill.reference, given | {"uniforms": 1.001 * chance[None]})
                assert kept == 0
                written += q[0, token] * (1 - chance) * anew
        assert same(written, p[0])


def test_the_map_of_linear_attention_is_the_models():
    drill = find("linear-attention-map")
    for case in drill.cases(Generator().manual_seed(7)):
        heads, size = case["queries"].shape[1], case["queries"].shape[3]
        scores = LinearScores(heads, size, "elu").double()
        for side in (scores.of_query, scores.of_key):
            side.weight.data = torch.eye(size, dtype=torch.float64).expand(heads, -1, -1)
        sides = [case[name] * size**0.25 for name in ("queries", "keys")]
        assert same(drill.call(drill.reference, case), scores(*sides).softmax(-1).detach())


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
