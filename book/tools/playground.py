"""Data, networks and measurements of the playground, the page that trains in the browser.

python book/tools/playground.py write    draw the data, train the networks, measure every preset
                                         over seeds in Chromium; write the three files of FILES and
                                         the picture for readers without scripts
python book/tools/playground.py check    say what differs from a new run, with fewer starts and
                                         seeds; exit code 1 if anything does

Weights are stored as one signed byte each, times a scale for each array, and every number that is
told of a network is that of its rounded weights. Another processor adds in another order, so a
check allows a weight to be off by one step and a measurement by a point.
"""

import base64
import json
import math
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import chromium
import torch
from playwright.sync_api import sync_playwright
from torch import Tensor, nn
from torch.nn import functional as F

from kdlearn.data import balanced_subset, base_digits
from kdlearn.data.splits import Split
from kdlearn.losses import attention_transfer_loss, distillation_loss

FOLDER = Path(__file__).resolve().parents[1] / "static" / "playground"
FILES = ("data", "digits", "measured")
# The scripts of a page with a playground, in their order; digits.js comes when it is asked for.
PARTS = ("playground", "engine", "data", "presets", "measured", "page")
# Of a shape the teacher learns from as many points as are in the pool, but from others.
POOL, HELD = 500, 300
DIGITS_POOL, DIGITS_HELD = 250, 200
# The students that read what is drawn: how many labeled digits they saw, and how many starts count.
FEW, STARTS = 100, 5
WAYS = ("labels", "distilled", "attention")
SEEDS, RECHECKED = 20, 1
AT_WEIGHT = 100
KEYS = {"data": "shapes", "digits": "digits", "measured": "measured"}
NAMES = {"arms": "ABC", "moons": "AB", "clouds": "ABCD", "digits": "0123456789"}

# Settings as a link has them and a seed, to the end; accuracies in percent of both students.
TRAIN = """([text, seed]) => {
  const { parseSettings, source, createSession, STEPS } = kdPlayground;
  const settings = parseSettings(text);
  const session = createSession(source(settings.data), { ...settings, seed });
  for (let step = 0; step < STEPS; step += 1) session.step();
  return session.measure().map(({ accuracy }) => Math.round(1000 * accuracy) / 10);
}"""

Shape = Callable[[int, torch.Generator], tuple[Tensor, Tensor]]


def arms(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Three arms of a spiral, with noise: points in [-1, 1]^2 and their classes."""
    labels = torch.arange(count) % 3
    place = torch.rand(count, generator=generator, dtype=torch.float64)
    angle = 2 * math.pi * labels / 3 + 3.6 * place
    radius = 0.12 + 0.74 * place
    points = radius[:, None] * torch.stack([angle.cos(), angle.sin()], dim=1)
    return points + 0.05 * _noise(count, generator), labels


def moons(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Two half circles that reach into each other, with noise."""
    labels = torch.arange(count) % 2
    angle = math.pi * torch.rand(count, generator=generator, dtype=torch.float64)
    side = 1.0 - 2.0 * labels
    x = 0.55 * angle.cos() - 0.27 * side
    y = side * (0.55 * angle.sin() - 0.16)
    return torch.stack([x, y], dim=1) + 0.09 * _noise(count, generator), labels


def clouds(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Four round clouds that overlap, so that no network can be right everywhere."""
    labels = torch.arange(count) % 4
    angle = math.pi * (0.25 + labels / 2)
    centers = 0.48 * torch.stack([angle.cos(), angle.sin()], dim=1)
    return centers + 0.26 * _noise(count, generator), labels


def _noise(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 2, generator=generator, dtype=torch.float64)


SHAPES: dict[str, Shape] = {"arms": arms, "moons": moons, "clouds": clouds}


class ConvNet(nn.Module):
    """Two convolutions with ReLU and pooling, one linear layer; for images of 8 x 8."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3, padding=1)
        self.second = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.classifier = nn.Linear(8 * width, 10)

    def forward(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Return the logits and the features whose maps the page shows."""
        first = F.relu(self.first(images))
        second = F.relu(self.second(F.max_pool2d(first, 2)))
        return self.classifier(F.max_pool2d(second, 2).flatten(1)), [first, second]


def mlp(width: int, classes: int) -> nn.Sequential:
    """The teacher of a shape."""
    hidden = [nn.Linear(2, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(width, classes))


def fit(network: nn.Module, loss: Callable[[Tensor], Tensor], count: int, steps: int) -> None:
    """Train with Adam and a rate that falls to 0, on batches of 50 of `count` rows."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(torch.randint(count, (50,))).backward()
        optimizer.step()
        schedule.step()


def text_of(values: Tensor) -> str:
    """Pack whole numbers of one byte each."""
    return base64.b64encode(bytes(value % 256 for value in values.flatten().tolist())).decode()


def rounded(network: nn.Module) -> list[dict[str, Any]]:
    """Round a network's parameters in place to one byte each, and pack them."""
    packed = []
    for parameter in network.parameters():
        scale = float(f"{parameter.detach().abs().max().item() / 127:.4g}")
        steps = (parameter.detach() / scale).round().clamp(-127, 127)
        parameter.data = steps * scale
        packed.append({"scale": scale, "values": text_of(steps.long())})
    return packed


def shape_data(name: str) -> dict[str, Any]:
    """Points of a shape, packed, and a teacher that saw others."""
    generator = torch.Generator().manual_seed(0)
    points, labels = SHAPES[name](2 * POOL + HELD, generator)
    steps = ((points.clamp(-1, 1) + 1) * 127.5).round().long()
    points = steps.double() / 127.5 - 1
    order = torch.randperm(len(points), generator=generator)
    points, labels, steps = points[order], labels[order], steps[order]
    torch.manual_seed(0)
    teacher = mlp(24, len(NAMES[name])).double()
    fit(teacher, lambda rows: F.cross_entropy(teacher(points[rows]), labels[rows]), POOL, 2000)
    packed = rounded(teacher)
    shown = slice(POOL, None)
    return {
        "names": list(NAMES[name]),
        "pool": POOL,
        "points": text_of(steps[shown]),
        "labels": "".join(map(str, labels[shown].tolist())),
        "teacher": packed,
    }


def digits_data(starts: int = STARTS) -> dict[str, Any]:
    """Digits, packed, and the networks that read what a visitor draws.

    The accuracy of a student is the mean over its starts, of which the first is stored.
    """
    train, test = base_digits("train"), base_digits("test")
    images, labels = train.images.double(), train.labels
    torch.manual_seed(0)
    teacher = ConvNet(12).double()
    fit(teacher, lambda rows: F.cross_entropy(teacher(images[rows])[0], labels[rows]), 1000, 1500)
    networks = {"teacher": rounded(teacher)}
    accuracy = {"teacher": accuracy_of(teacher)}
    few = balanced_subset(Split(train.images, labels, train.index), FEW, seed=0)
    x, y = few.images.double(), few.labels
    with torch.no_grad():
        targets, features = teacher(x)

    def by_labels(student: ConvNet, rows: Tensor) -> Tensor:
        return F.cross_entropy(student(x[rows])[0], y[rows])

    def by_soft_targets(student: ConvNet, rows: Tensor) -> Tensor:
        logits, _ = student(x[rows])
        return distillation_loss(logits, targets[rows], y[rows], temperature=4, weight=0.9)

    def by_attention(student: ConvNet, rows: Tensor) -> Tensor:
        logits, own = student(x[rows])
        first, second = (
            attention_transfer_loss(mine, its[rows])
            for mine, its in zip(own, features, strict=True)
        )
        return F.cross_entropy(logits, y[rows]) + AT_WEIGHT * (first + second)

    for name, loss in zip(WAYS, (by_labels, by_soft_targets, by_attention), strict=True):
        found = []
        for start in range(starts):
            torch.manual_seed(start)
            student = ConvNet(4).double()
            fit(student, partial(loss, student), FEW, 800)
            weights = rounded(student)
            networks.setdefault(name, weights)
            found.append(accuracy_of(student))
        accuracy[name] = sum(found) / starts
    pool, held = train.images[:DIGITS_POOL], test.images[:DIGITS_HELD]
    pixels = (16 * torch.cat([pool, held])).long().flatten().tolist()
    shown = torch.cat([labels[:DIGITS_POOL], test.labels[:DIGITS_HELD]])
    return {
        "names": list(NAMES["digits"]),
        "pool": DIGITS_POOL,
        "pixels": "".join("0123456789abcdefg"[pixel] for pixel in pixels),
        "labels": "".join(map(str, shown.tolist())),
        "accuracy": {name: round(value, 4) for name, value in accuracy.items()},
        "tested": len(test.labels),
        "labeled": FEW,
        "starts": STARTS,
        "networks": networks,
    }


def accuracy_of(network: ConvNet) -> float:
    """Return the share of the test digits that a network names."""
    test = base_digits("test")
    with torch.no_grad():
        answers = network(test.images.double())[0].argmax(dim=1)
    return (answers == test.labels).double().mean().item()


def script(name: str, content: dict[str, Any]) -> str:
    """Write data as a classic script, which also loads from a folder."""
    text = json.dumps(content, separators=(",", ":"))
    return (
        "// Written by book/tools/playground.py.\n"
        f"(globalThis.kdPlayground ||= {{}}).{KEYS[name]} = {text};\n"
    )


def content(name: str) -> dict[str, Any]:
    """Read what a written script holds."""
    text = (FOLDER / f"{name}.js").read_text(encoding="utf-8")
    return json.loads(text[text.index(" = {") + 3 : text.rindex(";")])


def measure(data: dict[str, Any], digits: dict[str, Any], seeds: int) -> dict[str, Any]:
    """Train every preset in the browser; return accuracies in percent, one for each seed."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.FLAGS)
        )
        page = browser.new_page()
        for text in (script("data", data), script("digits", digits)):
            page.add_script_tag(content=text)
        for name in ("engine", "presets"):
            page.add_script_tag(path=FOLDER / f"{name}.js")
        presets = page.evaluate("kdPlayground.presets")
        runs = {
            preset["id"]: [
                page.evaluate(TRAIN, [preset["settings"], seed]) for seed in range(1, seeds + 1)
            ]
            for preset in presets
        }
        browser.close()
    return {
        name: {"labels": [run[0] for run in found], "distilled": [run[1] for run in found]}
        for name, found in runs.items()
    }


def take_picture() -> None:
    """Store what the small form shows when it has trained."""
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "picture.html"
        path.write_text(
            f"<!doctype html><base href='{FOLDER.parent.as_uri()}/'>"
            "<link rel='stylesheet' href='site/site.css'><main><div data-playground='small'></div>"
            f"</main>{script_tags()}",
            encoding="utf-8",
        )
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.FLAGS)
        )
        page = browser.new_page(viewport={"width": 768, "height": 700}, reduced_motion="reduce")
        page.goto(path.as_uri())
        page.wait_for_selector("[data-steps='600']")
        page.locator(".pg-stage").screenshot(path=FOLDER / "still.jpg", type="jpeg", quality=80)
        browser.close()


def script_tags() -> str:
    """Return what loads the parts one by one, from their folder."""
    addresses = [(FOLDER / f"{name}.js").as_uri() for name in PARTS]
    return "".join(f'<script defer src="{address}"></script>' for address in addresses)


def bundle(folder: Path) -> None:
    """Make one script of the parts in a built site, so that a page asks for one."""
    texts = [(folder / f"{name}.js").read_text(encoding="utf-8") for name in PARTS]
    (folder / f"{PARTS[0]}.js").write_text("".join(texts), encoding="utf-8")
    for name in PARTS[1:]:
        (folder / f"{name}.js").unlink()


def differences(fresh: Any, stored: Any, place: str) -> list[str]:
    """Say where two contents differ by more than another processor explains."""
    if isinstance(fresh, dict) and isinstance(stored, dict):
        if fresh.keys() != stored.keys():
            return [f"{place} has other entries: {sorted(fresh)}, not {sorted(stored)}"]
        if fresh.keys() == {"scale", "values"}:
            return weights_differ(fresh, stored, place)
        pairs = [(fresh[key], stored[key], f"{place}.{key}") for key in fresh]
        return [fault for pair in pairs for fault in differences(*pair)]
    if isinstance(fresh, float) and isinstance(stored, float):
        return [] if abs(fresh - stored) <= 0.01 else [f"{place} is {fresh}, not {stored}"]
    return [] if fresh == stored else [f"{place} differs"]


def weights_differ(fresh: dict[str, Any], stored: dict[str, Any], place: str) -> list[str]:
    """Compare two rounded arrays of weights."""
    left, right = (base64.b64decode(array["values"]) for array in (fresh, stored))
    steps = [(x - y + 128) % 256 - 128 for x, y in zip(left, right, strict=True)]
    near = math.isclose(fresh["scale"], stored["scale"], rel_tol=1e-3)
    return [] if near and all(abs(step) <= 1 for step in steps) else [f"{place} differs"]


def accuracies_differ(fresh: dict[str, Any], stored: dict[str, Any]) -> list[str]:
    """Compare a few seeds of every preset with the same seeds of those that are stored."""
    if fresh.keys() != stored.keys():
        return [f"measured has other presets: {sorted(fresh)}, not {sorted(stored)}"]
    return [
        f"measured.{name}.{student}, seed {seed} is {one} %, not {other} %"
        for name, students in fresh.items()
        for student, found in students.items()
        for seed, (one, other) in enumerate(zip(found, stored[name][student], strict=False), 1)
        if abs(one - other) > 1
    ]


def main(arguments: list[str]) -> int:
    """Write or check; return the exit code."""
    if arguments not in (["write"], ["check"]):
        raise SystemExit(__doc__)
    data = {name: shape_data(name) for name in SHAPES}
    if arguments == ["write"]:
        digits = digits_data()
        contents = (data, digits, measure(data, digits, SEEDS))
        for name, made in zip(FILES, contents, strict=True):
            (FOLDER / f"{name}.js").write_text(script(name, made), encoding="utf-8")
        take_picture()
        return 0
    # Of the students that read drawings the first start alone, whose weights are stored.
    digits, stored = digits_data(starts=1), content("digits")
    digits["accuracy"] |= {name: stored["accuracy"][name] for name in WAYS}
    faults = differences(data, content("data"), "data")
    faults += differences(digits, stored, "digits")
    faults += accuracies_differ(measure(data, digits, RECHECKED), content("measured"))
    print("\n".join(faults), end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
