"""The converter: with the weight that it gives, the gradients are those of the other code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kdlearn import losses
from kdlearn.show.widgets import convention_converter
from kdlearn.show.widgets.converter import EXCHANGES, SIZES
from tests.show.opened import Pages, numbers, press, pull, said

T, B, L, C, HEIGHT, WIDTH = 3.0, 4, 5, 7, 2, 3
Loss = Callable[[Tensor, Tensor], Tensor]


def logs(s: Tensor, t: Tensor, temperature: float = T) -> tuple[Tensor, Tensor]:
    return F.log_softmax(s / temperature, -1), F.softmax(t / temperature, -1)


def kl(reduction: str, squared: bool = True, temperature: float = T) -> Loss:
    def loss(s: Tensor, t: Tensor) -> Tensor:
        each = F.kl_div(*logs(s, t, temperature), reduction="none")
        divisor = {"batchmean": len(s), "all": each.numel(), "sum": 1, "rows": each[..., 0].numel()}
        return (temperature**2 if squared else 1) * each.sum() / divisor[reduction]

    return loss


def cross(mean_over_classes: bool, temperature: float = T) -> Loss:
    def loss(s: Tensor, t: Tensor) -> Tensor:
        log_s, p_t = logs(s, t, temperature)
        each = -(p_t * log_s)
        return each.mean() if mean_over_classes else each.sum(-1).mean()

    return loss


def apart(s: Tensor, t: Tensor) -> Tensor:
    maps = (F.normalize(side.square().sum(1).flatten(1), dim=1) for side in (s, t))
    return torch.sub(*maps)


def cosine(s: Tensor, t: Tensor) -> Tensor:
    maps = (side.square().sum(1).flatten(1) for side in (s, t))
    return 1 - F.cosine_similarity(*maps).mean()


# The losses of the other codes, written down from their sources; see the chapter on conventions.
THEIRS: dict[str, Loss] = {
    "AT authors, alpha": kl("batchmean"),
    "RepDistiller, -a": kl("batchmean"),
    "mdistiller, KD weight": kl("batchmean"),
    "PyTorch tutorial, soft weight": kl("batchmean"),
    "torchdistill, alpha (not 0)": kl("batchmean"),
    "DeiT, alpha (soft)": kl("all"),
    "nn.KLDivLoss() times T²": kl("all"),
    "TextBrewer, kd_ce_loss": cross(mean_over_classes=False),
    "TinyBERT, prediction layer": cross(mean_over_classes=True),
    "batchmean on (B, L, V), times T²": kl("batchmean"),
    "AT authors, beta": lambda s, t: apart(s, t).square().mean(),
    "RepDistiller, -b": lambda s, t: apart(s, t).square().mean(),
    "squared distance, mean over images": lambda s, t: apart(s, t).square().sum(1).mean(),
    "squared distance, summed over the batch": lambda s, t: apart(s, t).square().sum(),
    "1 - cosine of the maps": cosine,
    "paper, Eq. 2, beta": lambda s, t: apart(s, t).norm(dim=1).mean() / 2,
    "FitNets, Eq. 3": lambda s, t: (s - t).square().flatten(1).sum(1).mean() / 2,
    "TRL, beta=0": kl("rows", squared=False, temperature=1),
    "torchtune, DistiLLM (forward)": cross(mean_over_classes=False, temperature=1),
    "DistillKit, summed over tokens": kl("sum", squared=False, temperature=1),
}
SHAPES = {
    "soft_target_loss": (B, C),
    "forward_kl": (B, L, C),
    "attention_transfer_loss": (B, C, HEIGHT, WIDTH),
    "hint_loss": (B, C, HEIGHT, WIDTH),
}


def gradient(loss: Loss, s: Tensor, t: Tensor) -> Tensor:
    s = s.clone().requires_grad_()
    return torch.autograd.grad(loss(s, t), s)[0]


@pytest.mark.parametrize("row", EXCHANGES, ids=lambda row: f"{row.loss}: {row.code}")
def test_the_weight_here_gives_the_gradient_there(row: Any) -> None:
    theirs = F.mse_loss if row.loss == "hint_loss" and row.code == "RepDistiller, -b" else None
    theirs = theirs or THEIRS[row.code]
    shape = (B, L, C) if "(B, L, V)" in row.code else SHAPES[row.loss]
    generator = torch.Generator().manual_seed(0)
    s, t = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    options: dict[str, Any] = {"temperature": T} if row.loss == "soft_target_loss" else {}
    if row.convention:
        options["convention"] = "paper"
    ours = getattr(losses, row.loss)
    sizes = {"T": T, "C": C, "B": B, "L": L, "P": HEIGHT * WIDTH, "D": C * HEIGHT * WIDTH}
    weight = row.convert(row.usual, sizes)
    before = 1 - row.usual if row.complement else row.usual
    torch.testing.assert_close(
        weight * gradient(lambda a, b: ours(a, b, **options), s, t),
        before * gradient(theirs, s, t),
        rtol=1e-6,
        atol=1e-12,
    )


def test_every_size_of_a_factor_can_be_typed() -> None:
    used = {letter for row in EXCHANGES for letter in row.powers}
    assert used == {letter for letter, _, _ in SIZES}


def test_the_page_converts_as_python_does(pages: Pages) -> None:
    page = pages.open(convention_converter(), width=390)
    for number, row in enumerate(EXCHANGES):
        page.get_by_role("combobox", name="You come from").select_option(str(number))
        page.get_by_role("spinbutton", name="Its weight").fill("0.3")
        sizes = {}
        for place, (letter, title, _) in enumerate(SIZES):
            box = page.get_by_role("spinbutton", name=title)
            assert box.is_visible() is (letter in row.powers)
            if letter in row.powers:
                box.fill(str(place + 2))
                sizes[letter] = float(place + 2)
        here = numbers(page, "data.kd-value").tolist()[0]
        assert here == pytest.approx(row.convert(0.3, sizes), rel=1e-12)
        assert row.loss in page.locator(".kd-code").text_content()


def test_torchdistills_alpha_stands_before_the_labels(pages: Pages) -> None:
    page = pages.open(convention_converter())
    page.get_by_role("combobox", name="You come from").select_option("4")
    assert numbers(page).tolist() == pytest.approx([0.9, 0.1])
    assert "(1 − alpha)" in said(page)


@pytest.mark.parametrize(("bar", "held"), [(1, 0), (2, 1)])
def test_a_bar_is_dragged_and_the_other_follows(pages: Pages, bar: int, held: int) -> None:
    page = pages.open(convention_converter())
    page.get_by_role("combobox", name="You come from").select_option("5")  # DeiT: times C
    page.get_by_role("spinbutton", name="classes C").fill("100")
    pull(page, f".kd-bars svg:nth-of-type({bar})", 0.1, 0.5)
    weights = [float(text) for text in page.locator(".kd-bars .kd-value").all_text_contents()]
    assert weights[1] == pytest.approx(weights[0] * EXCHANGES[5].convert(1, {"C": 100}), rel=0.01)
    assert weights[held] == pytest.approx(10, rel=0.06)
    assert numbers(page)[0].item() == pytest.approx(weights[1], rel=0.01)


def test_a_share_that_is_dragged_stays_a_share(pages: Pages) -> None:
    page = pages.open(convention_converter())
    page.get_by_role("combobox", name="You come from").select_option("4")  # 1 - alpha
    pull(page, ".kd-bars svg >> nth=0", 0.1, 0.9)
    assert page.get_by_role("spinbutton", name="Its weight").input_value() == "0"


def test_what_is_no_number_is_asked_for(pages: Pages) -> None:
    page = pages.open(convention_converter())
    press(page, "spinbutton", "classes C", "ControlOrMeta+a", "0")
    assert "above 0" in said(page)
    press(page, "spinbutton", "classes C", "ControlOrMeta+a", "9")
    assert numbers(page)[0].item() == pytest.approx(0.5 / 9)
