"""Drill: read a layer without editing the model."""

from typing import Any

from torch import Generator, Tensor, nn

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Call, Case, Drill, Edge, Fault, Network, Wrong, switches


def capture_features(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Run the model once on the images and return the output of the submodule of that name.

    The value is the one that the submodule gave, also where a later layer works in place on it, and
    gradients flow back through it. No hook is left on the model, also if the model raises an
    exception.
    """
    captured = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        captured.append(output.clone())

    handle = model.get_submodule(name).register_forward_hook(keep)
    try:
        model(images)
    finally:
        handle.remove()
    return captured[0]


def _case(generator: Generator, batch: int, inputs: int, width: int, name: str) -> Case:
    model = Network(
        nn.Sequential(nn.Linear(inputs, width), nn.ReLU(inplace=True)),
        nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, 2)),
    ).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, generator=generator)
    return {"model": model, "name": name, "images": draws.normal(generator, batch, inputs)}


def example() -> Case:
    """Two images, a layer before work in place."""
    return _case(Generator().manual_seed(0), 2, 3, 3, "0.0")


def cases(generator: Generator) -> list[Case]:
    """Layers before and after work in place, at two depths."""
    return [
        _case(generator, batch, inputs, width, name)
        for batch, inputs, width in ((3, 4, 5), (2, 6, 3), (4, 3, 4))
        for name in ("0.0", "0.1", "1.0")
    ]


class Silent(nn.Module):
    """A layer that fails."""

    def forward(self, input: Tensor) -> Tensor:
        """Raise."""
        raise RuntimeError("this layer fails")


def edges() -> list[Edge]:
    """A model that raises after the layer, a whole block, the model's last layer, one image."""
    case, broken = example(), example()
    broken["model"].add_module("2", Silent())
    return [
        Edge(
            "a model whose forward raises",
            broken,
            "Let the exception through, and clean up in a finally block.",
        ),
        Edge("a block as the layer", case | {"name": "0"}),
        Edge("the last layer", case | {"name": "1.2"}),
        Edge("a batch of one image", case | {"images": case["images"][:1]}),
    ]


def watch(case: Case, calls: list[Call]) -> list[str]:
    """How often the model ran."""
    if not calls:
        return ["not-run-as-a-whole"]
    return ["run-twice"] if len(calls) > 1 else []


def family(wrong: Wrong, model: nn.Module, name: str, images: Tensor) -> Tensor:
    """The capture with its switches."""
    names = [found for found, part in model.named_modules() if not list(part.children())]
    if "next-layer" in wrong and name in names:
        name = names[min(names.index(name) + 1, len(names) - 1)]
    if "first-layer" in wrong:
        name = names[0]
    layer = model.get_submodule(name)
    seen: list[Tensor] = []

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        taken = inputs[0] if "input-captured" in wrong else output
        if "detached" in wrong:
            taken = taken.detach()
        seen.append(taken if "overwritten" in wrong else taken.clone())

    handle = layer.register_forward_hook(keep)
    try:
        result: Tensor = model(images)
    finally:
        handle.remove()
    if "layer-alone" in wrong:
        return (
            layer(images).clone() if images.shape[1] == getattr(layer, "in_features", 0) else result
        )
    return result if "model-output" in wrong else seen[0]


drill = Drill(
    id="capture-features",
    title="Read a layer",
    task=(
        "You need the output of an inner layer of a model that you may not edit. Write the "
        "function that runs the model and returns it."
    ),
    minutes=8,
    level="core",
    hints=(
        "Modules can call a function of yours when they have run. Who removes it afterwards, also "
        "if the model raises?",
        "Which three arguments does a forward hook get, and which of them is the layer's value?",
        "A later layer may work in place on the very tensor that you keep. What must you keep, so "
        "that it stays as it was and a gradient still flows through it?",
    ),
    explanation=(
        "One forward pass, and one copy of the features. Three traps. A hook that stays is called "
        "in every later run, keeps tensors alive and slows the model, so it is removed in finally. "
        "A detached output gives a loss without a gradient for the student. And "
        "nn.ReLU(inplace=True) after the layer overwrites what was captured, in silence: the clone "
        "keeps the layer's value and stays in the graph. The interviewer listens for finally, and "
        "for why not to edit the model. For many layers a context manager over one pass is better: "
        "kdlearn's Taps."
    ),
    reference=capture_features,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # kept
        - detached: the captured features carry no gradient: a loss on them would not train the
          student. Clone, do not detach.
        - overwritten: the features are those after the next layer: nn.ReLU(inplace=True) wrote into
          the tensor that you kept. Keep a clone.
        # what
        - input-captured: this is the input of the submodule, not its output: a forward hook gets
          (module, inputs, output).
        - model-output: this is the output of the whole model, not of the layer that was asked for.
        - next-layer: this is the output of the layer after the one that was asked for.
        - first-layer: this is the output of the first layer, whatever name says.
        - layer-alone: the submodule alone ran on the images: its input in the model is what the
          layers before it give.
        """
    ),
    effects=(
        Fault("run-twice", "the model runs more than once: one pass gives the layer's output too."),
        Fault(
            "not-run-as-a-whole",
            "the model itself is not run, only parts of it: what its own forward does is left out.",
        ),
    ),
    watch=watch,
    gradients=("images",),
)
