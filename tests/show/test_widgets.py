"""The figures: what Python writes into them, and what a browser makes of it."""

from __future__ import annotations

import base64
import re
from importlib.resources import files
from typing import Any

import pytest
import torch

from kdlearn.measure import load_results
from kdlearn.measure.metrics import energy_in_box, pointing_game
from kdlearn.show.widgets import (
    HTMLFigure,
    attention_explorer,
    bias_explorer,
    convention_converter,
    divergence_explorer,
    gradient_explorer,
    loss_picker,
    luck_machine,
    map_builder,
    query_explorer,
    temperature_explorer,
    training_form,
)
from kdlearn.show.widgets.temperature import TEMPERATURES
from tests.show.opened import Pages, data_of

CLASSES, SAMPLES, LAYERS = 10, 8, ("group1", "group2", "group3")
MODELS = ("scratch", "teacher", "student (KD)", "student (KD + AT)")


def some_logits(samples: int = 3) -> torch.Tensor:
    return 4 * torch.randn(samples, CLASSES, generator=torch.Generator().manual_seed(1))


def some_images(samples: int = SAMPLES, channels: int = 1, side: int = 40) -> torch.Tensor:
    return torch.rand(samples, channels, side, side, generator=torch.Generator().manual_seed(2))


def some_maps(samples: int = SAMPLES, side: int = 40) -> dict[str, dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return {
        model: {layer: torch.rand(samples, side, side, generator=generator) for layer in LAYERS}
        for model in MODELS
    }


def some_boxes(samples: int = SAMPLES) -> torch.Tensor:
    corner = 0.6 * torch.rand(samples, 2, generator=torch.Generator().manual_seed(4))
    return torch.cat([corner, corner + 0.3], dim=1)


# What Python writes.


def test_the_same_data_gives_the_same_bytes() -> None:
    bundles = [temperature_explorer(some_logits())._repr_mimebundle_() for _ in range(2)]
    assert bundles[0] == bundles[1]
    bundles = [
        attention_explorer(some_images(), some_maps(), boxes=some_boxes())._repr_mimebundle_()
        for _ in range(2)
    ]
    assert bundles[0] == bundles[1]


def test_a_notebook_gets_html_and_a_sentence() -> None:
    bundle = temperature_explorer(some_logits())._repr_mimebundle_(include=None, exclude=None)
    assert set(bundle) == {"text/html", "text/plain"}
    assert 'class="kdfig"' in bundle["text/html"]


def test_the_text_tells_the_numbers_of_torch() -> None:
    logits = some_logits()
    text = temperature_explorer(logits).text
    p = (logits[0].double() / 4).softmax(0)
    for name, value in enumerate(p.tolist()):
        assert f"{name} {value:.4f}" in text
    nats = -(p * p.log()).sum().item()
    share = 100 * nats / torch.tensor(float(CLASSES)).log().item()
    assert f"entropy {nats:.3f} nats, {share:.1f} % of the maximum" in text


def test_the_table_without_scripts_holds_softmax_at_1_4_and_20() -> None:
    logits = some_logits()
    html = temperature_explorer(logits).html
    columns = [(logits[0].double() / t).softmax(0).tolist() for t in (1, 4, 20)]
    for row in zip(*columns, strict=True):
        assert "".join(f"<td>{p:.4f}</td>" for p in row) in html


def test_one_row_of_logits_needs_no_batch() -> None:
    logits = some_logits()[0]
    assert temperature_explorer(logits).html == temperature_explorer(logits[None]).html


def test_a_class_name_cannot_end_the_script() -> None:
    figure = temperature_explorer(torch.tensor([1.0, 2.0]), class_names=["</script><b>", "a&b"])
    assert "</script><b>" not in figure.html
    assert data_of(figure)["names"] == ["</script><b>", "a&b"]


def test_temperatures_rise_by_near_equal_factors() -> None:
    ratios = [b / a for a, b in zip(TEMPERATURES, TEMPERATURES[1:], strict=False)]
    assert TEMPERATURES[0] == 0.25 and TEMPERATURES[-1] == 64
    assert {1, 4, 20} <= set(TEMPERATURES)
    assert min(ratios) > 1.1 and max(ratios) <= 1.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": torch.zeros(2, 3, 4)}, r"\(2, 3, 4\)"),
        ({"logits": torch.zeros(2, 1)}, "C from 2 to 40"),
        ({"logits": torch.zeros(2, 41)}, "pick the classes"),
        ({"logits": torch.zeros(0, 3)}, "empty"),
        ({"logits": torch.tensor([1.0, float("inf")])}, "NaN or infinity"),
        ({"logits": torch.zeros(3), "class_names": ["a"]}, "1 class names for 3 classes"),
        ({"logits": torch.zeros(2, 3), "images": torch.zeros(1, 8, 8)}, "1 images for 2 samples"),
        ({"logits": torch.zeros(1, 3), "images": torch.zeros(8, 8)}, r"images\[None\]"),
    ],
)
def test_the_temperature_explorer_says_what_is_wrong(
    arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        temperature_explorer(**arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 2, 8, 8)}, r"\(N, 3, H, W\)"),
        ({"maps": {}}, "maps are empty"),
        ({"maps": {"teacher": {}}}, "maps are empty"),
        (
            {"maps": {"a": {"g": torch.ones(2, 4, 4)}, "b": {"h": torch.ones(2, 4, 4)}}},
            "b has maps of h, a of g",
        ),
        ({"maps": {"a": {"g": torch.ones(2, 1, 4, 4)}}}, r"shape \(2, h, w\).*activation_map"),
        ({"maps": {"a": {"g": torch.ones(3, 4, 4)}}}, r"got \(3, 4, 4\)"),
        ({"maps": {"a": {"g": -torch.ones(2, 4, 4)}}}, "must not be below 0"),
        ({"maps": {"a": {"g": torch.full((2, 4, 4), float("nan"))}}}, "maps of a, g, hold NaN"),
        ({"boxes": torch.zeros(2, 2)}, r"boxes of shape \(2, 4\)"),
        ({"boxes": torch.tensor([[4.0, 4.0, 20.0, 20.0]] * 2)}, "divide pixels"),
    ],
)
def test_the_attention_explorer_says_what_is_wrong(change: dict[str, Any], message: str) -> None:
    good = {
        "images": torch.zeros(2, 8, 8),
        "maps": {"teacher": {"g": torch.ones(2, 4, 4)}},
        "boxes": torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 2),
    }
    with pytest.raises(ValueError, match=message):
        attention_explorer(**{**good, **change})


def test_eight_images_four_models_three_layers_stay_under_150_kilobytes() -> None:
    figure = attention_explorer(some_images(), some_maps(), boxes=some_boxes())
    assert len(figure.html.encode()) <= 150_000


def test_packed_maps_come_back_within_half_a_level() -> None:
    maps = {"teacher": {"group1": some_maps(samples=3, side=5)["teacher"]["group1"]}}  # odd count
    figure = attention_explorer(some_images(samples=3), maps)
    packed = base64.b64decode(data_of(figure)["maps"][0][0]["values"])
    nibbles = [half for byte in packed for half in (byte >> 4, byte & 15)]
    given = maps["teacher"]["group1"]
    scaled = (given / given.amax(dim=(1, 2), keepdim=True)).flatten()
    back = torch.tensor(nibbles[: scaled.numel()]) / 15
    assert (back - scaled).abs().max() <= 0.5 / 15 + 1e-6


def test_the_verdicts_are_those_of_evaluate() -> None:
    maps, boxes = some_maps(), some_boxes()
    verdicts = data_of(attention_explorer(some_images(), maps, boxes=boxes))["verdicts"]
    for m, model in enumerate(MODELS):
        for k, layer in enumerate(LAYERS):
            for n in range(SAMPLES):
                one, box = maps[model][layer][n : n + 1], boxes[n : n + 1]
                place = "inside" if pointing_game(one, box) == 1 else "outside"
                share = 100 * energy_in_box(one, box)
                expected = f"peak {place} the box, {share:.0f} % of the energy in it"
                assert verdicts[m][k][n] == expected


def test_a_flat_map_has_no_peak_to_boast_of() -> None:
    figure = attention_explorer(
        torch.zeros(1, 8, 8),
        {"flat": {"g": torch.ones(1, 4, 4)}},
        boxes=torch.tensor([[0.0, 0.0, 0.5, 0.5]]),
    )
    assert "flat 25 % of its equal peaks inside the box, 25 % of the energy" in figure.text


def test_without_boxes_nothing_is_judged() -> None:
    figure = attention_explorer(some_images(), some_maps())
    assert "box" not in figure.text
    assert "verdicts" not in data_of(figure)


# The form.


def test_the_button_trains_with_the_values_of_the_sliders() -> None:
    seen: list[tuple[float, float]] = []

    def train(temperature: float, weight: float) -> str:
        seen.append((temperature, weight))
        return "accuracy <b>91 %</b>"

    form = training_form(train, temperature=(2, 6), weight=(0, 0.5))
    assert (form.temperature.value, form.weight.value) == (4, 0.5)
    form.temperature.value, form.weight.value = 5, 0.25
    form.button.click()
    assert seen == [(5, 0.25)]
    assert "accuracy &lt;b&gt;91 %&lt;/b&gt;" in form.answer.value
    assert not form.button.disabled


def test_the_button_is_off_while_the_training_runs() -> None:
    def train(temperature: float, weight: float) -> str:
        return f"disabled: {form.button.disabled}"

    form = training_form(train)
    assert form.run() == "disabled: True"


def test_an_error_of_the_training_becomes_a_sentence() -> None:
    def train(temperature: float, weight: float) -> str:
        raise ValueError("the loss is NaN in step 3")

    form = training_form(train)
    text = form.run()
    assert "T = 4, w = 0.9 failed: ValueError: the loss is NaN in step 3" in text
    assert "NaN in step 3" in form.answer.value
    assert not form.button.disabled


def test_the_form_refuses_what_it_cannot_use() -> None:
    with pytest.raises(TypeError, match="hand over the function"):
        training_form("91 %")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="above 0"):
        training_form(lambda t, w: "", temperature=(0, 4))
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        training_form(lambda t, w: "", weight=(0, 2))


# What a browser makes of it.


def shown_probabilities(page: Any) -> torch.Tensor:
    texts = page.locator(".kd-value").all_text_contents()
    return torch.tensor([float(text) for text in texts], dtype=torch.float64)


def test_the_keyboard_sets_the_temperature(pages: Pages) -> None:
    logits = some_logits()
    page = pages.open(temperature_explorer(logits))
    slider = page.get_by_role("slider")
    slider.focus()
    for key, expected in [("ArrowRight", 5), ("Home", 0.25), ("ArrowUp", 0.3), ("End", 64)]:
        page.keyboard.press(key)
        assert slider.get_attribute("aria-valuetext") == str(expected)
        p = (logits[0].double() / expected).softmax(0)
        torch.testing.assert_close(shown_probabilities(page), p, atol=6e-5, rtol=0.5)
        nats = torch.special.entr(p).sum().item()
        best, second = p.argsort(descending=True)[:2].tolist()
        line = page.locator("[aria-live=polite]").text_content()
        assert f"T = {expected}: entropy {nats:.3f} nats" in line
        assert re.search(rf"Most likely: {best} \(.*second best: {second} \(", line)


def test_the_bars_are_as_long_as_the_probabilities(pages: Pages) -> None:
    logits = some_logits()
    page = pages.open(temperature_explorer(logits))
    lengths = page.evaluate(
        "[...document.querySelectorAll('.kd-bar')].map(bar => bar.getBBox().width"
        " / bar.parentNode.getBoundingClientRect().width)"
    )
    expected = (logits[0].double() / 4).softmax(0)
    torch.testing.assert_close(torch.tensor(lengths).double(), expected, atol=1e-3, rtol=0)


def test_another_sample_brings_its_numbers_and_its_image(pages: Pages) -> None:
    logits, images = some_logits(), some_images(samples=3, side=8)
    page = pages.open(temperature_explorer(logits, images=images))
    page.get_by_role("combobox", name="Sample").select_option("2")
    expected = (logits[1].double() / 4).softmax(0)
    torch.testing.assert_close(shown_probabilities(page), expected, atol=6e-5, rtol=0)
    pixels = page.evaluate(
        "[...document.querySelector('.kd-thumb').getContext('2d').getImageData(0, 0, 8, 8).data]"
    )
    assert pixels[0::4] == (images[1].double() * 255).round().int().flatten().tolist()
    assert page.get_by_role("img", name="image of sample 2").is_visible()


def test_figures_on_one_page_do_not_disturb_each_other(pages: Pages) -> None:
    figure, logits = temperature_explorer(some_logits()[:1]), some_logits()[0].double()
    attention = attention_explorer(some_images(), some_maps())
    page = pages.open(figure, attention, figure)
    page.get_by_role("slider", name="Temperature T").nth(1).focus()
    page.keyboard.press("End")
    shown = shown_probabilities(page)
    torch.testing.assert_close(shown[:CLASSES], (logits / 4).softmax(0), atol=6e-5, rtol=0)
    torch.testing.assert_close(shown[CLASSES:], (logits / 64).softmax(0), atol=6e-5, rtol=0)
    assert page.locator("canvas").count() == len(MODELS)


def pixel(page: Any, model: int, x: float, y: float) -> list[int]:
    """Return red, green, blue of a model's canvas at fractions of its sides."""
    return page.evaluate(
        """([m, x, y]) => {
            const canvas = document.querySelectorAll(".kd-models canvas")[m];
            const at = [Math.floor(x * canvas.width), Math.floor(y * canvas.height)];
            return [...canvas.getContext("2d").getImageData(...at, 1, 1).data].slice(0, 3);
        }""",
        [model, x, y],
    )


def test_the_overlay_goes_from_the_image_to_the_map(pages: Pages) -> None:
    images = torch.tensor([[0.0, 1.0], [0.2, 0.4]])[None].repeat(1, 3, 1, 1)
    maps = torch.zeros(1, 4, 4)
    maps[0, 0, 3] = 7.0
    page = pages.open(attention_explorer(images, {"teacher": {"g": maps}}))
    page.get_by_role("slider").focus()
    page.keyboard.press("Home")
    assert pixel(page, 0, 0.99, 0.01) == [255, 255, 255]
    assert pixel(page, 0, 0.25, 0.75) == [51, 51, 51]
    page.keyboard.press("End")
    assert pixel(page, 0, 0.99, 0.01) == [252, 255, 164]  # the peak: the end of the color map
    assert pixel(page, 0, 0.1, 0.9) == [0, 0, 4]  # nothing there: its beginning


def test_the_box_is_drawn_where_it_is(pages: Pages) -> None:
    figure = attention_explorer(
        torch.zeros(1, 8, 8),
        {"teacher": {"g": torch.ones(1, 4, 4)}},
        boxes=torch.tensor([[0.25, 0.5, 0.75, 1.0]]),
    )
    page = pages.open(figure)
    blue = [0x56, 0xB4, 0xE9]
    assert pixel(page, 0, 0.25, 0.75) == blue
    assert pixel(page, 0, 0.75, 0.75) == blue
    assert pixel(page, 0, 0.5, 0.5) == blue
    assert pixel(page, 0, 0.5, 0.25) != blue


def test_layer_and_image_change_every_model_and_its_verdict(pages: Pages) -> None:
    maps, boxes = some_maps(), some_boxes()
    page = pages.open(attention_explorer(some_images(), maps, boxes=boxes))

    def drawings() -> list[str]:
        canvases = "[...document.querySelectorAll('canvas')].map(canvas => canvas.toDataURL())"
        return page.evaluate(canvases)

    before = drawings()
    page.get_by_role("combobox", name="Layer").select_option("group1")
    changed = drawings()
    assert all(old != new for old, new in zip(before, changed, strict=True))
    page.get_by_role("combobox", name="Image").focus()
    page.keyboard.press("ArrowDown")
    assert all(old != new for old, new in zip(changed, drawings(), strict=True))
    for m, model in enumerate(MODELS):
        share = 100 * energy_in_box(maps[model]["group1"][1:2], boxes[1:2])
        verdict = page.locator(".kd-caption").nth(m).text_content()
        assert verdict.startswith(model) and f"{share:.0f}\u00a0% of the energy" in verdict
        assert verdict.removeprefix(model) in page.locator("[aria-live=polite]").text_content()


def every_figure() -> dict[str, HTMLFigure]:
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    logits, labels = some_logits(40), torch.arange(40) % CLASSES
    student, teacher = some_images(2, 3, side=8).unbind()
    heads = torch.randn(3, 2, 5, 4, generator=torch.Generator().manual_seed(5)).unbind()
    return {
        "temperature": temperature_explorer(
            some_logits(), class_names=names, images=some_images(3, side=8)
        ),
        "attention": attention_explorer(
            some_images(channels=3), some_maps(side=10), boxes=some_boxes()
        ),
        "gradient": gradient_explorer(torch.zeros(4), torch.arange(4.0), class_names=names[:4]),
        "map_builder": map_builder(student, teacher),
        "divergence": divergence_explorer(),
        "query": query_explorer(names[:5], *heads),
        "luck": luck_machine(load_results("warped-digits"), ["teacher's argmax", "KD T=4"]),
        "loss_picker": loss_picker(),
        "converter": convention_converter(),
        "bias": bias_explorer({"KD T=8, no 3": logits, "scratch": -logits}, labels, missing=3),
    }


FIGURES = list(every_figure())


def test_figures_hold_the_same_bytes_again() -> None:
    first, again = every_figure(), every_figure()
    assert [figure.html for figure in first.values()] == [figure.html for figure in again.values()]


def test_every_script_has_its_figure() -> None:
    folder = files("kdlearn.show.widgets")
    scripts = {path.name for path in folder.iterdir() if path.name.endswith(".js")}
    assert scripts == {"figure.js", *(f"{kind}.js" for kind in FIGURES)}


def test_nothing_is_wider_than_a_phone_and_a_finger_finds_every_control(pages: Pages) -> None:
    page = pages.open(*every_figure().values(), width=390)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for element in page.locator("canvas, svg, table, input, select, button").all():
        box = element.bounding_box()
        assert box is None or box["x"] + box["width"] <= 390
    # A box is ticked by its label too.
    for control in page.locator("input:not([type=checkbox]), select, button, .kd-tick").all():
        box = control.bounding_box()
        assert box is None or min(box["height"], box["width"]) >= 44, control.evaluate(
            "node => node.outerHTML"
        )


def test_without_scripts_nothing_is_wider_than_a_phone(pages: Pages) -> None:
    page = pages.open(*every_figure().values(), width=390, scripts=False)
    for table in page.locator(".kd-static").all():
        box = table.bounding_box()
        assert box["x"] + box["width"] <= 390


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(pages: Pages, theme: str, width: int) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page = pages.open(*every_figure().values(), theme=theme, width=width)
    found = Axe().run(page).response["violations"]
    assert [(rule["id"], rule["nodes"][0]["html"][:120]) for rule in found] == []


def lightness(page: Any, rule: str) -> float:
    color = page.locator(".kdfig").first.evaluate(f"node => getComputedStyle(node).{rule}")
    return sum(float(part) for part in re.findall(r"[\d.]+", color)[:3]) / (3 * 255)


@pytest.mark.parametrize("system", ["light", "dark"])
def test_the_theme_of_the_site_wins_over_that_of_the_system(pages: Pages, system: str) -> None:
    for theme, bright in [("light", True), ("dark", False), ("auto", system == "light")]:
        page = pages.open(temperature_explorer(some_logits()), theme=theme)
        page.emulate_media(color_scheme=system)
        assert (lightness(page, "backgroundColor") > 0.5) is bright
        assert (lightness(page, "color") < 0.5) is bright


def test_a_table_stands_in_until_the_script_runs(pages: Pages) -> None:
    figures = every_figure().values()
    without = pages.open(*figures, scripts=False)
    assert without.locator("table:visible").count() == len(FIGURES)
    page = pages.open(*figures)
    assert page.locator("table:visible").count() == 0
    for figure in page.locator(".kdfig").all():
        assert figure.locator("[aria-live=polite]").text_content()
