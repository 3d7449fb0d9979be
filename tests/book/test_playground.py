"""The playground: its training against PyTorch, its claims over seeds, its page played by hand."""

from __future__ import annotations

import base64
import gzip
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import playground
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.losses import attention_transfer_loss, distillation_loss, soft_target_loss
from kdlearn.losses.maps import activation_map
from kdlearn.measure.paired import PairedDifference, paired_difference

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

FOLDER = playground.FOLDER
SCRIPTS = ("engine", "data", "digits", "presets", "measured")
STEPS = 200
# Everything that PyTorch needs to train the same students: their start, the points, the batches.
RECORD = """([text, steps]) => {
  const { createSession, parseSettings, source } = kdPlayground;
  const settings = parseSettings(text);
  const session = createSession(source(settings.data), settings);
  const start = session.students.map(({ network }) =>
    network.map(({ weights, biases }) => [[...weights], [...biases]]));
  const { pool } = session.source;
  const labels = new Map(session.labeled.map((index, n) => [index, session.given[n]]));
  const batches = [];
  const losses = [];
  for (let step = 0; step < steps; step += 1) {
    const batch = session.draw();
    batches.push({ ...batch, labels: batch.labeled.map((index) => labels.get(index)) });
    losses.push(session.train(batch));
  }
  return {
    settings, start, batches, losses, rows: [...pool.rows], teacher: [...pool.teacher],
    truth: session.truth, given: session.given, measured: session.measure(),
  };
}"""


@pytest.fixture(scope="module")
def engine(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    for name in SCRIPTS:
        page.add_script_tag(path=FOLDER / f"{name}.js")
    yield page
    page.close()


def arrays(stored: list[dict[str, Any]]) -> list[Tensor]:
    """Unpack a network's rounded weights."""
    return [
        torch.frombuffer(bytearray(base64.b64decode(array["values"])), dtype=torch.int8).double()
        * array["scale"]
        for array in stored
    ]


def student_of(start: list[Any], width: int) -> nn.Sequential:
    """Build PyTorch's network with the first weights of the page's."""
    modules: list[nn.Module] = []
    for weights, biases in start:
        layer = nn.Linear(width, len(biases), dtype=torch.float64)
        layer.weight.data = torch.tensor(weights, dtype=torch.float64).view(len(biases), width)
        layer.bias.data = torch.tensor(biases, dtype=torch.float64)
        modules += [layer, nn.ReLU()]
        width = len(biases)
    return nn.Sequential(*modules[:-1])


@pytest.mark.parametrize("student", ["labels", "distilled"])
@pytest.mark.parametrize(
    "settings",
    [
        "data=arms&from=labels&labels=50&noise=0.3",
        "data=arms&from=teacher&labels=20&unlabeled=200&temperature=2",
        "data=moons&from=both&labels=100&unlabeled=50&noise=0.2&temperature=4&weight=0.75",
        "data=digits&from=both&labels=50&unlabeled=100&temperature=4&weight=0.9&width=8",
    ],
)
def test_every_step_is_pytorchs(engine: Page, settings: str, student: str) -> None:
    record = engine.evaluate(RECORD, [settings, STEPS])
    which = ["labels", "distilled"].index(student)
    chosen = record["settings"]
    weight = {"labels": 0.0, "teacher": 1.0, "both": chosen["weight"]}[chosen["from"]]
    temperature = chosen["temperature"]
    width = 64 if chosen["data"] == "digits" else 2
    rows = torch.tensor(record["rows"], dtype=torch.float64).view(-1, width)
    teacher = torch.tensor(record["teacher"], dtype=torch.float64).view(len(rows), -1)
    network = student_of(record["start"][which], width)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for batch, losses in zip(record["batches"], record["losses"], strict=True):
        labels = torch.tensor(batch["labels"])
        seen = batch["labeled"]
        if student == "labels" or weight == 0:
            loss = F.cross_entropy(network(rows[seen]), labels)
        else:
            seen = seen + batch["unlabeled"]
            logits = network(rows[seen])
            soft = soft_target_loss(logits, teacher[seen], temperature=temperature)
            loss = weight * soft + (1 - weight) * F.cross_entropy(logits[: len(labels)], labels)
            if not batch["unlabeled"]:
                whole = distillation_loss(
                    logits, teacher[seen], labels, temperature=temperature, weight=weight
                )
                torch.testing.assert_close(loss, whole)
        assert losses[which] == pytest.approx(loss.item(), rel=1e-5)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.parametrize("name", playground.SHAPES)
def test_a_teachers_answers_are_pytorchs(engine: Page, name: str) -> None:
    record = engine.evaluate(RECORD, [f"data={name}", 0])
    w1, b1, w2, b2, w3, b3 = arrays(playground.content("data")[name]["teacher"])
    rows = torch.tensor(record["rows"], dtype=torch.float64).view(-1, 2)
    hidden = F.relu(F.linear(rows, w1.view(-1, 2), b1))
    hidden = F.relu(F.linear(hidden, w2.view(len(b2), -1), b2))
    expected = F.linear(hidden, w3.view(len(b3), -1), b3)
    torch.testing.assert_close(torch.tensor(record["teacher"]).double(), expected.flatten())


@pytest.mark.parametrize("name", ["teacher", "labels", "distilled", "attention"])
def test_a_convolutional_networks_answers_and_maps_are_pytorchs(engine: Page, name: str) -> None:
    read = """name => {
      const { decodeArrays, digits, readDigit, source } = kdPlayground;
      const network = decodeArrays(digits.networks[name]);
      const rows = source("digits").held.rows;
      return [0, 1, 2, 3].map((n) => {
        const image = rows.slice(64 * n, 64 * n + 64);
        const { logits, maps } = readDigit(network, image);
        return { image: [...image], logits: [...logits], maps: maps.map((map) => [...map]) };
      });
    }"""
    found = engine.evaluate(read, name)
    stored = arrays(playground.content("digits")["networks"][name])
    network = playground.ConvNet(len(stored[1])).double()
    for parameter, values in zip(network.parameters(), stored, strict=True):
        parameter.data = values.view_as(parameter)
    images = torch.tensor([one["image"] for one in found], dtype=torch.float64).view(-1, 1, 8, 8)
    logits, features = network(images)
    for n, one in enumerate(found):
        torch.testing.assert_close(torch.tensor(one["logits"]).double(), logits[n])
        for map_, layer in zip(one["maps"], features, strict=True):
            expected = activation_map(layer)[n].flatten()
            torch.testing.assert_close(torch.tensor(map_).double(), expected)


def test_attention_transfer_moves_the_maps_and_not_the_accuracy() -> None:
    digits = playground.content("digits")
    images = playground.base_digits("test").images.double()
    features = {}
    for name in ("teacher", "labels", "attention"):
        stored = arrays(digits["networks"][name])
        network = playground.ConvNet(len(stored[1])).double()
        for parameter, values in zip(network.parameters(), stored, strict=True):
            parameter.data = values.view_as(parameter)
        with torch.no_grad():
            features[name] = network(images)[1]
    for layer, teacher in enumerate(features["teacher"]):
        near = attention_transfer_loss(features["attention"][layer], teacher)
        assert near < attention_transfer_loss(features["labels"][layer], teacher)
    accuracy = digits["accuracy"]
    assert abs(accuracy["attention"] - accuracy["labels"]) < 0.02
    assert accuracy["distilled"] - accuracy["labels"] > 0.03


def test_what_is_stored_are_the_digits(engine: Page) -> None:
    digits = playground.base_digits("test")
    rows = engine.evaluate("[...kdPlayground.source('digits').held.rows]")
    stored = torch.tensor(rows).view(-1, 1, 8, 8)
    assert torch.equal(stored, digits.images[: len(stored)])
    labels = engine.evaluate("kdPlayground.source('digits').held.labels")
    assert labels == digits.labels[: len(stored)].tolist()


@pytest.mark.parametrize("name", playground.NAMES)
@pytest.mark.parametrize("noise", [0, 0.3])
def test_labels_are_wrong_as_often_as_the_settings_say(
    engine: Page, name: str, noise: float
) -> None:
    record = engine.evaluate(RECORD, [f"data={name}&labels=100&noise={noise}", 0])
    pairs = zip(record["given"], record["truth"], strict=True)
    assert sum(given != truth for given, truth in pairs) == round(100 * noise)
    counts = torch.tensor(record["truth"]).bincount()
    assert counts.max() - counts.min() <= 1


def test_a_student_that_learns_from_labels_is_the_student_of_labels(engine: Page) -> None:
    record = engine.evaluate(RECORD, ["data=clouds&from=labels&unlabeled=200", 50])
    assert all(one == other for one, other in record["losses"])


def test_settings_travel_in_a_link_and_nonsense_is_left_out(engine: Page) -> None:
    there = "data=digits&from=both&temperature=8&weight=0.25&labels=30&unlabeled=50&noise=0.4"
    there += "&width=4&seed=17"
    back = "text => kdPlayground.formatSettings(kdPlayground.parseSettings(text))"
    assert engine.evaluate(back, there) == there
    start = engine.evaluate(back, "")
    assert engine.evaluate(back, "data=cats&labels=1e9&seed=-3&noise=x&weight=") == start


PRESETS = list(playground.content("measured"))


def gain(runs: list[list[float]]) -> PairedDifference:
    table = pd.DataFrame(
        [
            {"seed": seed, "method": method, "accuracy": accuracy}
            for seed, run in enumerate(runs)
            for method, accuracy in zip(("labels", "distilled"), run, strict=True)
        ]
    )
    return paired_difference(table, "distilled", "labels")


def trainings(engine: Page, settings: str) -> list[list[float]]:
    """Train both students with five seeds that no stored measurement has."""
    return [engine.evaluate(playground.TRAIN, [settings, seed]) for seed in range(101, 106)]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_shows_what_it_says(engine: Page, name: str) -> None:
    measured = playground.content("measured")[name]
    stored = gain(list(map(list, zip(measured["labels"], measured["distilled"], strict=True))))
    presets = engine.evaluate("kdPlayground.presets")
    preset = next(preset for preset in presets if preset["id"] == name)
    anew = gain(trainings(engine, preset["settings"]))
    assert stored.n == playground.SEEDS
    if preset["expected"] == "gain":
        assert stored.low > 5, stored
        assert anew.low > 0, anew
    elif preset["expected"] == "little":
        assert stored.low > 0 and stored.high < 5, stored
        assert 0 < anew.mean < 7, anew
    else:
        # Either zero is in the interval, or all of the interval is less than a point.
        assert abs(stored.mean) < 1, stored
        for found in (stored, anew):
            assert found.low <= 0 <= found.high or max(-found.low, found.high) < 1, found


def test_more_labels_bring_the_student_of_labels_up(engine: Page) -> None:
    few, many = (
        gain(trainings(engine, f"data=arms&from=teacher&labels={labels}&unlabeled=200"))
        for labels in (20, 200)
    )
    assert few.low > 0 and many.mean < 2


def test_a_low_weight_lets_the_wrong_labels_in(engine: Page) -> None:
    settings = "data=moons&from=both&temperature=2&labels=100&unlabeled=0&noise=0.3&weight="
    low, high = (
        sum(distilled for _, distilled in trainings(engine, f"{settings}{weight}")) / 5
        for weight in (0.1, 0.9)
    )
    assert high - low > 2


def test_each_preset_is_measured(engine: Page) -> None:
    assert engine.evaluate("kdPlayground.presets.map(({ id }) => id)") == PRESETS


def test_the_scripts_are_light() -> None:
    every = b"".join((FOLDER / f"{name}.js").read_bytes() for name in playground.PARTS)
    assert len(gzip.compress(every)) <= 26_000
    assert len(gzip.compress((FOLDER / "digits.js").read_bytes())) <= 18_600


def packed(steps: list[int], scale: float = 0.01) -> dict[str, Any]:
    return {"scale": scale, "values": playground.text_of(torch.tensor(steps))}


@pytest.mark.parametrize(
    ("fresh", "stored", "same"),
    [
        (packed([1, -127, 5]), packed([1, -127, 5]), True),
        (packed([1, -126, 5]), packed([1, -127, 5]), True),
        (packed([1, -125, 5]), packed([1, -127, 5]), False),
        (packed([1, 5], 0.02), packed([1, 5], 0.01), False),
        ({"labels": "0123"}, {"labels": "0122"}, False),
        ({"accuracy": 0.950}, {"accuracy": 0.945}, True),
        ({"accuracy": 0.950}, {"accuracy": 0.930}, False),
        ({"labels": "0"}, {}, False),
    ],
)
def test_a_check_allows_another_processor_and_nothing_else(
    fresh: dict[str, Any], stored: dict[str, Any], same: bool
) -> None:
    assert (playground.differences(fresh, stored, "data") == []) is same


def test_a_check_compares_the_seeds_that_both_have() -> None:
    stored = {"noise": {"labels": [80.0, 70.0, 60.0], "distilled": [90.0, 91.0, 92.0]}}
    fresh = {"noise": {"labels": [80.7, 70.0], "distilled": [90.0, 91.0]}}
    assert playground.accuracies_differ(fresh, stored) == []
    fresh["noise"]["labels"][1] = 72.0
    assert len(playground.accuracies_differ(fresh, stored)) == 1
    assert playground.accuracies_differ({}, stored) != []


@pytest.mark.long
def test_what_is_stored_comes_out_again(browser: Browser) -> None:
    command = [sys.executable, str(Path(playground.__file__)), "check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


# ---- the page itself, from a folder without a server


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Write a page with all three forms, on scripts in a folder."""
    style = (FOLDER.parent / "site" / "site.css").as_uri()
    path: Path = tmp_path_factory.mktemp("playground") / "page.html"
    path.write_text(
        f'<!doctype html><html lang="en" data-theme="light"><meta charset="utf-8">'
        f'<title>Try</title><meta name="viewport" content="width=device-width">'
        f'<link rel="stylesheet" href="{style}">'
        f"<main><h1>Try</h1>"
        f'<div data-playground="full"></div><div data-playground="draw"></div>'
        f'<div data-playground="small"></div></main>{playground.script_tags()}</html>',
        encoding="utf-8",
    )
    return path.as_uri()


@pytest.fixture(params=[390, 1280])
def page(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Page]:
    context = browser.new_context(
        viewport={"width": request.param, "height": 844},
        has_touch=request.param == 390,
        reduced_motion="reduce",
    )
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: said.type == "error" and faults.append(said.text))
    yield page
    context.close()
    assert faults == []


def trained(page: Page, which: str = "full") -> None:
    page.locator(f'[data-playground="{which}"]').scroll_into_view_if_needed()
    page.wait_for_selector(f'[data-playground="{which}"][data-steps="600"]')


def test_a_link_opens_trained_students_in_its_settings(page: Page, address: str) -> None:
    page.goto(f"{address}#data=moons&from=both&labels=100&noise=0.3&weight=0.75&seed=5")
    trained(page)
    assert page.get_by_label("Two moons").is_checked()
    assert page.get_by_label("Seed").input_value() == "5"
    assert "After 600 steps" in page.locator(".pg-said").first.inner_text()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_classes_have_colors_though_the_style_is_late(page: Page, address: str) -> None:
    held: list[Any] = []
    page.route("**/playground.css*", lambda route: held.append(route))
    page.goto(address, wait_until="commit")
    trained(page)
    colored = """() => {
      const canvas = document.querySelector(".pg-panel canvas");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      for (let i = 0; i < data.length; i += 4) {
        const [low, , high] = [...data.slice(i, i + 3)].sort((a, b) => a - b);
        if (high - low > 40) return true;
      }
      return false;
    }"""
    assert not page.evaluate(colored)
    held[0].continue_()
    page.wait_for_function(colored)


def test_a_control_trains_anew_and_changes_the_link(page: Page, address: str) -> None:
    page.goto(address)
    trained(page)
    before = page.locator(".pg-said").first.inner_text()
    page.locator('[data-playground="full"]').get_by_label(
        "Labeled points", exact=False
    ).first.press("End")
    page.wait_for_function("location.hash.includes('labels=200')")
    trained(page)
    page.wait_for_function("document.querySelector('.pg-said').textContent")
    assert page.locator(".pg-said").first.inner_text() != before


def test_a_preset_says_what_was_measured(page: Page, address: str) -> None:
    page.goto(address)
    trained(page)
    page.get_by_role("button", name="Enough clean labels").click()
    assert "Measured over 20 seeds" in page.locator(".pg-story").inner_text()
    assert (
        page.get_by_role("button", name="Enough clean labels").get_attribute("aria-pressed")
        == "true"
    )


def test_the_probe_answers_to_keys_and_to_a_tap(page: Page, address: str) -> None:
    page.goto(address)
    trained(page)
    title = page.locator(".pg-probe .pg-title")
    first = title.inner_text()
    canvas = page.locator(".pg-panel canvas").first
    canvas.focus()
    page.keyboard.press("ArrowLeft")
    second = title.inner_text()
    assert first != second
    assert "teacher" in page.locator(".pg-said").first.inner_text()
    canvas.scroll_into_view_if_needed()
    canvas.click(position={"x": 10, "y": 10})
    assert title.inner_text() not in (first, second)
    for column in range(3):
        shown = page.locator(f".pg-probe td:nth-child({column + 2}) .pg-value").all_inner_texts()
        assert sum(map(float, shown)) == pytest.approx(100, abs=2)


def test_a_drawn_one_is_read(page: Page, address: str) -> None:
    page.goto(address)
    board = page.locator(".pg-board canvas")
    board.scroll_into_view_if_needed()
    page.wait_for_selector(".pg-readers .pg-digit")
    page.get_by_role("button", name="Clear").click()
    assert page.locator(".pg-readers .pg-digit").count() == 0
    box = board.bounding_box()
    assert box
    x, y = box["x"] + box["width"] / 2, box["y"]
    page.mouse.move(x + 8, y + 0.15 * box["height"])
    page.mouse.down()
    page.mouse.move(x, y + 0.85 * box["height"], steps=8)
    page.mouse.up()
    assert page.locator(".pg-readers .pg-digit").count() == 4
    assert page.locator(".pg-readers .pg-digit").first.inner_text() == "1"


def test_training_can_be_paused_and_goes_on(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 844})
    page = context.new_page()
    page.goto(f"{address}#data=digits&width=32")
    root = page.locator('[data-playground="full"]')
    root.get_by_role("button", name="Pause").click()
    steps = root.get_attribute("data-steps")
    assert int(steps or 600) < 600
    page.evaluate(
        "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    assert root.get_attribute("data-steps") == steps
    root.get_by_role("button", name="Train").click()
    trained(page)
    context.close()


def test_the_small_form_trains_too(page: Page, address: str) -> None:
    page.goto(address)
    trained(page, "small")
    assert page.locator('[data-playground="small"] .pg-controls').count() == 0
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
