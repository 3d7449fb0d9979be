"""Every loss against numbers that the official implementations gave."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from kdlearn import losses
from kdlearn.distill import CRDLoss
from kdlearn.losses.maps import activation_map

DATA = Path(__file__).parent / "oracle"
CASES = json.loads((DATA / "oracle.json").read_text())["cases"]
ARRAYS = np.load(DATA / "oracle.npz")
Inputs = dict[str, Tensor]
Formula = Callable[[Inputs], Tensor]


def entropy(logits, mask=None, temperature=1.0):
    """Mean entropy of the rows kept: what a cross-entropy has and a KL has not."""
    rows = logits.flatten(0, -2) if mask is None else logits[mask]
    log_p = F.log_softmax(rows / temperature, dim=-1)
    return -(log_p.exp() * log_p).sum(-1).mean()


def labeled(x):
    return x["y"] != -100


def kept(x):
    return x["m"].bool()


# --- Cases that a loss of the package reproduces, with its factor where the code has another one.


def kd(temperature, factor=1.0):
    return lambda x: factor * losses.soft_target_loss(x["s"], x["t"], temperature=temperature)


def kd_and_labels(temperature, weight):
    return lambda x: losses.distillation_loss(
        x["s"], x["t"], x["y"], temperature=temperature, weight=weight
    )


def dkd(alpha, beta):
    return lambda x: losses.dkd_loss(
        x["s"], x["t"], x["y"], temperature=4.0, alpha=alpha, beta=beta
    )


def dist(beta, gamma):
    return lambda x: losses.dist_loss(x["s"], x["t"], beta=beta, gamma=gamma)


def attention(p=2, convention="code"):
    return lambda x: losses.attention_transfer_loss(x["s"], x["t"], p=p, convention=convention)


def pair(name, factor=1.0):
    return lambda x: factor * getattr(losses, name)(x["s"], x["t"])


def rkd(distance, angle):
    return lambda x: (
        distance * losses.rkd_distance_loss(x["s"], x["t"])
        + angle * losses.rkd_angle_loss(x["s"], x["t"])
    )


def deit_soft(temperature):
    return lambda x: losses.deit_soft_loss(
        x["s"], x["d"], x["t"], x["y"], temperature=temperature, weight=0.1
    )


def standardized(x):
    sides = (losses.standardize_logits(x["s"]), losses.standardize_logits(x["t"]))
    soft = losses.soft_target_loss(*sides, temperature=2.0)
    return 0.1 * F.cross_entropy(x["s"], x["y"]) + 9 * soft


def vid(x):
    torch.set_default_dtype(torch.float64)
    try:
        loss = losses.VIDLoss(6, 10, middle_channels=10)
    finally:
        torch.set_default_dtype(torch.float32)
    for layer, name in zip((0, 2, 4), ("w0", "w1", "w2"), strict=True):
        loss.mean[layer].weight.data = x[name]
    return loss(x["s"], x["t"])


def tinybert_attention(x):
    layers = losses.layer_map(2, 4)
    return sum(losses.attention_score_loss(x[f"s{i}"], x[f"t{j}"]) for i, j in layers.items())


def tinybert_states(x):
    layers = {0: 0} | {i + 1: j + 1 for i, j in losses.layer_map(2, 4).items()}
    return sum(losses.hidden_state_loss(x[f"h{i}"], x[f"u{j}"]) for i, j in layers.items())


def minilm(*relations, masked):
    def formula(x):
        mask = kept(x) if masked else None
        loss = 0
        for first, second in relations:
            student, teacher = (x[first], x[second]), (x["t" + first], x["t" + second])
            if first == second:
                student, teacher = student[0], teacher[0]
            loss = loss + losses.relation_loss(student, teacher, relation_heads=4, mask=mask)
        return loss

    return formula


def gkd(beta, temperature):
    return lambda x: losses.generalized_jsd(
        x["s"], x["t"], beta=beta, temperature=temperature, mask=labeled(x)
    )


def token(name, **options):
    return lambda x: getattr(losses, name)(x["s"], x["t"], mask=labeled(x), **options)


def plus_entropy(formula, share=1.0):
    return lambda x: formula(x) + share * entropy(x["t"], labeled(x))


def symmetric(x):
    return 0.5 * (token("forward_kl")(x) + token("reverse_kl")(x) + entropy(x["t"], labeled(x)))


def skewed_reverse(x):
    """KL(s || m) with m = 0.9 t + 0.1 s is what is left of the JSD without KL(t || m)."""
    mixed = token("generalized_jsd", beta=0.9)(x) - 0.9 * token("skew_kl", skew=0.9)(x)
    return mixed / 0.1


def top_k(tail, tokens):
    return lambda x: (
        tokens(x) * losses.top_k_kl(x["s"], x["vals"], x["ids"], tail=tail, mask=kept(x))
    )


def kept_tokens(x):
    return x["m"].sum()


def unit(states):
    return F.normalize(states, dim=-1)


def cosine(masked):
    """1 - cos is half the squared distance of unit vectors; 12 is their width."""
    return lambda x: (
        6 * losses.hidden_state_loss(unit(x["s"]), unit(x["t"]), mask=kept(x) if masked else None)
    )


def cropped_cross_entropy(how=None):
    """The KL of cropped rows and the teacher's entropy; hidden keys have a score of -10000."""

    def formula(x):
        student, teacher = (x[side] if how is None else how(x[side], 1, True) for side in "st")
        log_t = F.log_softmax(teacher, -1)
        entropies = -(log_t.exp() * log_t).sum(-1).transpose(1, 2)[kept(x)].mean()
        return entropies + losses.attention_distribution_loss(student, teacher, mask=kept(x))

    return formula


def top_k_as_if_complete(x):
    """DistillKit's ZERO makes the k stored probabilities sum to 1, the student's it leaves."""
    complete = F.log_softmax(x["vals"], dim=-1)
    value = losses.top_k_kl(x["s"], complete, x["ids"], tail="ignore", mask=kept(x))
    return kept_tokens(x) * value


MATCHED: dict[str, Formula] = {
    **{f"kd/{code}/T{t}": kd(t) for code in ("repdistiller", "mdistiller") for t in (1, 4, 20)},
    "kd/szagoruyko/T4_alpha0.9": kd_and_labels(4.0, weight=0.9),
    "kd/torchdistill/T4_alpha0.1": kd_and_labels(4.0, weight=1 - 0.1),
    "kd/modelopt/T2_mean": kd(2.0, factor=1 / 10),
    "kd/modelopt/T2_batchmean": kd(2.0),
    "kd/textbrewer_ce/T4": lambda x: losses.soft_cross_entropy(x["s"], x["t"], temperature=4.0),
    "kd/textbrewer_mse/T1": pair("logit_mse_loss"),
    "kd/tinybert_ce/T1": pair("soft_cross_entropy", factor=1 / 10),
    "deit/soft/tau3": deit_soft(3.0),
    "deit/soft/tau1": deit_soft(1.0),
    "deit/hard/tau1": lambda x: losses.deit_hard_loss(x["s"], x["d"], x["t"], x["y"]),
    "dkd/mdistiller/a1_b8_T4": dkd(1, 8),
    "dkd/mdistiller/a1_b6_T4": dkd(1, 6),
    "dkd/mdistiller/a1_b2_T4": dkd(1, 2),
    "dkd/mdistiller/tckd_only_T4": lambda x: losses.target_class_loss(x["s"], x["t"], x["y"]),
    "dkd/mdistiller/nckd_only_T4": lambda x: losses.nontarget_class_loss(x["s"], x["t"], x["y"]),
    "dist/official/b1_g1": dist(1.0, 1.0),
    "dist/official/b2_g2": dist(2.0, 2.0),
    "dist/official/b1_g0": dist(1.0, 0.0),
    "dist/official/b0_g1": dist(0.0, 1.0),
    "logitstd/torchdistill/T2": standardized,
    "at/szagoruyko/same": attention(),
    **{
        f"at/{code}/{size}_p2": attention()
        for code in ("repdistiller", "mdistiller")
        for size in ("same", "student_larger", "teacher_larger")
    },
    "at/repdistiller/same_p4": attention(p=4),
    "at/torchdistill/code": attention(),
    "at/torchdistill/paper": attention(convention="paper"),
    "fitnet/repdistiller": pair("hint_loss"),
    **{
        f"sp/{code}/{channels}": pair("similarity_preserving_loss")
        for code in ("repdistiller", "mdistiller")
        for channels in ("same_c", "other_c")
    },
    **{
        f"nst/repdistiller/{size}": pair("nst_loss")
        for size in ("same", "student_larger", "teacher_larger")
    },
    "rkd/repdistiller/d25_a50": rkd(25, 50),
    "rkd/repdistiller/distance": rkd(1, 0),
    "rkd/repdistiller/angle": rkd(0, 1),
    "rkd/mdistiller/d25_a50": rkd(25, 50),
    "pkt/repdistiller": pair("pkt_loss"),
    "pkt/mdistiller": pair("pkt_loss"),
    "cc/repdistiller": pair("correlation_congruence_loss"),
    "fsp/repdistiller": lambda x: losses.fsp_loss((x["s1"], x["s2"]), (x["t1"], x["t2"])),
    "ab/repdistiller": pair("activation_boundary_loss", factor=3 / 1000),
    "ft/repdistiller": lambda x: losses.factor_transfer_loss(
        activation_map(x["s"]), activation_map(x["t"])
    ),
    "vid/repdistiller": vid,
    "reviewkd/hcl": pair("hcl_loss"),
    "tinybert/att": tinybert_attention,
    "tinybert/rep": tinybert_states,
    "textbrewer/att_mse/mask": lambda x: losses.attention_score_loss(x["s"], x["t"], mask=kept(x)),
    "textbrewer/att_mse_sum/mask": lambda x: losses.attention_score_loss(
        x["s"].sum(1, keepdim=True), x["t"].sum(1, keepdim=True), mask=kept(x)
    ),
    "textbrewer/att_ce/mask": cropped_cross_entropy(),
    "textbrewer/att_ce_mean/mask": cropped_cross_entropy(torch.mean),
    "textbrewer/hid_mse/mask": lambda x: losses.hidden_state_loss(x["s"], x["t"], mask=kept(x)),
    "textbrewer/hid_mse/nomask": pair("hidden_state_loss"),
    "textbrewer/cos/mask": cosine(masked=True),
    "textbrewer/cos/nomask": cosine(masked=False),
    "textbrewer/pkd": lambda x: 12 * losses.hint_loss(unit(x["s"][:, 0]), unit(x["t"][:, 0])),
    # TextBrewer's two Gram losses are the flow matrix of states, over tokens and over widths.
    "textbrewer/fsp": lambda x: losses.fsp_loss((x["s"].mT, x["s2"].mT), (x["t"].mT, x["t2"].mT)),
    "textbrewer/mmd_nst": lambda x: losses.fsp_loss((x["s"], x["s2"]), (x["t"], x["t2"])),
    **{
        f"minilm/{name}_{'mask' if masked else 'nomask'}": minilm(*relations, masked=masked)
        for masked in (True, False)
        for name, relations in {
            "v2_qq_kk_vv_Ar4": ("qq", "kk", "vv"),
            "v1_qk_vv_Ar4": ("qk", "vv"),
            "qq_Ar4": ("qq",),
            "vv_Ar4": ("vv",),
        }.items()
    },
    "vit_attention_distill/li2024": pair("vit_attention_loss"),
    **{f"gkd/trl/beta{beta}_T{t}": gkd(beta, t) for beta in (0, 0.1, 0.5, 0.9, 1) for t in (1, 2)},
    "gkd/trl/beta0.5_nolabels": pair("generalized_jsd", factor=7),
    "minillm/single_step": token("reverse_kl"),
    "torchtune/forward_kl": plus_entropy(token("forward_kl")),
    "torchtune/reverse_kl": token("reverse_kl"),
    "torchtune/symmetric_kl": symmetric,
    "distillm/forward_kl": plus_entropy(token("forward_kl")),
    "distillm/reverse_kl": token("reverse_kl"),
    "distillm/skewed_forward_kl": plus_entropy(token("skew_kl", skew=0.1)),
    "distillm/skewed_reverse_kl": skewed_reverse,
    "distillm/js_distance": token("generalized_jsd", beta=1 - 0.9),
    "distillm/tv_distance": token("total_variation"),
    "distillkit/dense_kl_T2": lambda x: (
        kept_tokens(x) * losses.forward_kl(x["s"], x["t"], temperature=2.0, mask=kept(x))
    ),
    "distillkit/sparse_kl_top4_zero": top_k_as_if_complete,
    "distillkit/sparse_kl_top4_uniform": top_k("bucket", kept_tokens),
    "trl/topk4_tail_forward_kl": top_k("bucket", lambda x: 1.0),
}


# --- Deliberate differences: what the other code computes, written out, and what we give instead.


class Difference(NamedTuple):
    reason: str
    theirs: Formula
    ours: Formula
    factor: float | None = None  # theirs / ours, where it is a constant


def probability_error(x):
    student, teacher = (F.softmax(x[side] / 20, dim=1) for side in "st")
    return 0.5 * F.cross_entropy(x["s"], x["y"]) + 0.5 * 400 * F.mse_loss(student, teacher)


def clamped_correlation(x):
    student, teacher = (F.softmax(x[side] / 4, dim=1) for side in "st")

    def relation(left, right):
        left, right = (side - side.mean(1, keepdim=True) for side in (left, right))
        return 1 - F.cosine_similarity(left, right, dim=1).mean()

    return 16 * (relation(student, teacher) + relation(student.T, teacher.T))


def signed_power(p):
    def formula(x):
        student, teacher = (F.normalize(x[side].pow(p).mean(1).flatten(1)) for side in "st")
        return (student - teacher).square().mean()

    return formula


def whole_energy(x):
    student, teacher = (F.normalize(x[side].pow(2).flatten(1)) for side in "st")
    return (student - teacher).square().mean()


def l1_rows(x):
    student, teacher = (F.normalize(f @ f.T, p=1) for f in (x[side].flatten(1) for side in "st"))
    return (student - teacher).square().sum() / len(student) ** 2


def kernel_gap(kernel):
    def formula(x):
        student, teacher = (kernel(x[side]) for side in "st")
        return (student - teacher).norm() / len(student) ** 2

    return formula


def inner_products(embeddings):
    return embeddings @ embeddings.T


def taylor_gaussian(embeddings):
    products = inner_products(F.normalize(embeddings))
    return math.exp(-0.8) * (1 + 0.8 * products + 0.32 * products**2)


def max_pooled_flow(x):
    def flow(first, last):
        first = F.adaptive_max_pool2d(first, last.shape[2:]).flatten(2)
        return first @ last.flatten(2).mT / first.shape[2]

    gap = flow(x["s1"], x["s2"]) - flow(x["t1"], x["t2"])
    return gap.norm(dim=1).sum() / len(gap)


def noise_contrast(x, samples=50):
    scores = x["s"].squeeze(-1)
    noise = (scores.shape[1] - 1) / samples
    positive = (scores[:, 0] / (scores[:, 0] + noise + 1e-7)).log().sum()
    negative = (noise / (scores[:, 1:] + noise + 1e-7)).log().sum()
    return -(positive + negative) / len(scores)


def remembered_contrast(batches):
    """CRD's two halves on the last of some batches: Z is of the first, rows move by a half."""

    def formula(x):
        memories, constants = {"s": x["v"], "t": x["u"]}, {}  # each side looks at the other's
        for suffix in batches:
            places, total = x["p" + suffix], 0
            for side, memory in memories.items():
                dots = (memory[places] * x[side + suffix][:, None]).sum(-1)
                raised = (dots / 0.07).exp()
                constants.setdefault(side, raised.detach().mean() * len(memory))
                total = total + noise_contrast({"s": raised / constants[side]}, len(memory))
            for side, other in (("s", "t"), ("t", "s")):
                rows, moved = places[:, 0], memories[other].clone()
                moved[rows] = unit((moved[rows] + x[side + suffix].detach()) / 2)
                memories[other] = moved
        return total

    return formula


def crd(batches):
    """The module, with embeddings that change nothing and the stored places for its draws."""

    def formula(x):
        samples, width = x["u"].shape
        loss = CRDLoss(width, width, torch.arange(samples), negatives=9, width=width).double()
        for embed in (loss.embed_student, loss.embed_teacher):
            embed.weight.data, embed.bias.data = torch.eye(width).double(), torch.zeros(width)
            embed.double()
        loss.student_memory.copy_(x["u"])
        loss.teacher_memory.copy_(x["v"])
        for suffix in batches:
            places = x["p" + suffix]
            loss._others = lambda rows, places=places: places[:, 1:]
            value = loss(x["s" + suffix], x["t" + suffix], places[:, 0])
        return value

    return formula


def without_negatives(scores):
    return scores.where(scores > -1e-3, 0)


def heads_joined(how):
    return lambda scores: how(scores, dim=1, keepdim=True)


def positive_scores(join):
    """TextBrewer without a mask is ours on scores whose negative part was cut off."""
    return lambda x: losses.attention_score_loss(
        without_negatives(join(x["s"])), without_negatives(join(x["t"]))
    )


def cut_cross_entropy(join):
    def formula(x):
        student, teacher = join(x["s"]), join(x["t"])
        probabilities = F.softmax(teacher, -1).where(teacher > -1e-3, 0)
        return -(probabilities * F.log_softmax(student, -1)).sum(-1).mean()

    return formula


def as_is(scores):
    return scores


DIFFERENCES: dict[str, Difference] = {
    "kd/torchdistill/T4_alpha0_beta1": Difference(
        "with alpha 0 torchdistill leaves out T squared; ours keeps it at every weight",
        lambda x: losses.soft_target_loss(x["s"], x["t"]) / 16,
        kd(4.0),
        factor=1 / 16,
    ),
    "kd/kdlib_vanilla/T20_w0.5": Difference(
        "KD_Lib compares softened probabilities by squared error, not by KL",
        probability_error,
        kd_and_labels(20.0, weight=0.5),
    ),
    "dist/torchdistill/tau4": Difference(
        "torchdistill clamps each norm to 1e-8; ours adds 1e-8 to their product as the authors do",
        clamped_correlation,
        lambda x: losses.dist_loss(x["s"], x["t"], temperature=4.0),
    ),
    "at/repdistiller/same_p1": Difference(
        "RepDistiller keeps the sign of odd powers; ours takes |A|^p as the paper does",
        signed_power(1),
        attention(p=1),
    ),
    "at/repdistiller/same_p3": Difference(
        "RepDistiller keeps the sign of odd powers; ours takes |A|^p as the paper does",
        signed_power(3),
        attention(p=3),
    ),
    "at/kdlib": Difference(
        "KD_Lib never sums over channels: a hint on squared features, no attention map",
        whole_energy,
        attention(),
    ),
    "sp/torchdistill/other_c": Difference(
        "torchdistill gives p=1 to normalize: rows of L1 length 1 instead of L2",
        l1_rows,
        pair("similarity_preserving_loss"),
    ),
    "cc/torchdistill_bilinear": Difference(
        "torchdistill compares matrices of inner products; ours is RepDistiller's neighbors",
        kernel_gap(inner_products),
        lambda x: losses.correlation_congruence_loss(x["s"], x["t"][:, :16]),
    ),
    "cc/torchdistill_gaussian": Difference(
        "torchdistill compares matrices of a Gaussian kernel's Taylor series",
        kernel_gap(taylor_gaussian),
        lambda x: losses.correlation_congruence_loss(x["s"], x["t"][:, :16]),
    ),
    "fsp/torchdistill": Difference(
        "torchdistill pools by maximum and sums norms of columns",
        max_pooled_flow,
        lambda x: losses.fsp_loss((x["s1"], x["s2"]), (x["t1"], x["t2"])),
    ),
    "crd/contrast_loss": Difference(
        "CRD's noise-contrastive estimate needs its memory bank; ours contrasts within the batch",
        noise_contrast,
        lambda x: losses.contrastive_loss(x["s"][:, :, 0], x["s"][:, :, 0].flip(0)),
    ),
    "crd/first_batch": Difference(
        "RepDistiller adds 1e-7 to the denominators of the critic",
        remembered_contrast([""]),
        crd([""]),
    ),
    "crd/second_batch": Difference(
        "RepDistiller adds 1e-7 to the denominators of the critic",
        remembered_contrast(["1", ""]),
        crd(["1", ""]),
    ),
    "textbrewer/att_mse/nomask": Difference(
        "without a mask TextBrewer sets every negative score to 0",
        positive_scores(as_is),
        pair("attention_score_loss"),
    ),
    "textbrewer/att_mse_sum/nomask": Difference(
        "without a mask TextBrewer sets every negative sum of heads to 0",
        positive_scores(heads_joined(torch.sum)),
        lambda x: losses.attention_score_loss(x["s"].sum(1, True), x["t"].sum(1, True)),
    ),
    "textbrewer/att_ce/nomask": Difference(
        "without a mask TextBrewer drops the probability of every negative score",
        cut_cross_entropy(as_is),
        pair("vit_attention_loss"),
    ),
    "textbrewer/att_ce_mean/nomask": Difference(
        "without a mask TextBrewer drops the probability of every negative mean score",
        cut_cross_entropy(heads_joined(torch.mean)),
        lambda x: losses.vit_attention_loss(x["s"].mean(1, True), x["t"].mean(1, True)),
    ),
}


def evaluate(name: str, formula: Formula) -> tuple[float, dict[str, Tensor]]:
    case = CASES[name]
    inputs = {key: torch.from_numpy(ARRAYS[array]) for key, array in case["inputs"].items()}
    for key in case["gradients"]:
        inputs[key].requires_grad_()
    value = formula(inputs)
    value.backward()
    return value.item(), {key: inputs[key].grad for key in case["gradients"]}


def assert_official(name: str, formula: Formula) -> None:
    case = CASES[name]
    single = case["internal_dtype"] == "float32"
    value, gradients = evaluate(name, formula)
    tolerance = 1e-5 if single else 1e-9
    assert value == pytest.approx(case["value"], rel=tolerance, abs=tolerance)
    for key, array in case["gradients"].items():
        tolerance = 1e-5 if single else 1e-7
        np.testing.assert_allclose(gradients[key], ARRAYS[array], rtol=tolerance, atol=tolerance)


def test_every_official_number_is_matched_or_explained():
    assert MATCHED.keys() | DIFFERENCES.keys() == CASES.keys()
    assert not MATCHED.keys() & DIFFERENCES.keys()
    assert len(CASES) == 120


@pytest.mark.parametrize("name", MATCHED)
def test_matches_the_official_code(name):
    assert_official(name, MATCHED[name])


@pytest.mark.parametrize("name", DIFFERENCES)
def test_the_other_formula_is_the_one_named(name):
    assert_official(name, DIFFERENCES[name].theirs)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_deliberate_difference_is_one(name):
    difference = DIFFERENCES[name]
    ours, _ = evaluate(name, difference.ours)
    assert ours != pytest.approx(CASES[name]["value"], rel=1e-9)
    if difference.factor is not None:
        assert ours * difference.factor == pytest.approx(CASES[name]["value"], rel=1e-9)


def test_the_authors_epsilon_moves_dist_by_one_in_ten_million():
    ours, _ = evaluate("dist/torchdistill/tau4", DIFFERENCES["dist/torchdistill/tau4"].ours)
    assert ours == pytest.approx(CASES["dist/torchdistill/tau4"]["value"], rel=1e-6)


@pytest.mark.parametrize("name", ["crd/first_batch", "crd/second_batch"])
def test_the_authors_epsilon_moves_crd_by_less_than_one_in_a_million(name):
    ours, _ = evaluate(name, DIFFERENCES[name].ours)
    assert ours == pytest.approx(CASES[name]["value"], rel=1e-6)


def test_the_gradient_of_crd_reaches_the_student_as_in_the_official_code():
    _, gradients = evaluate("crd/second_batch", DIFFERENCES["crd/second_batch"].ours)
    case = CASES["crd/second_batch"]
    official = torch.from_numpy(ARRAYS[case["gradients"]["s"]])
    student = torch.from_numpy(ARRAYS[case["inputs"]["s"]])
    # The length is fixed after the embedding in both, and the stored gradient is before that.
    along = (official * student).sum(1, keepdim=True) * student
    torch.testing.assert_close(gradients["s"], official - along, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [1, 3])
def test_odd_powers_agree_on_features_that_are_not_negative(p):
    features = {side: torch.rand(2, 3, 4, 4, dtype=torch.float64) for side in "st"}
    torch.testing.assert_close(attention(p=p)(features), signed_power(p)(features))
