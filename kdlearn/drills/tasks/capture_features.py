"""Drill: read a layer without editing the model."""

from typing import Any

import torch
from torch import Generator, Tensor, nn

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Solution


def capture_features(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Run the model once on the images and return the output of the submodule of that name.

    The value is the one that the submodule gave, also where a later layer works in place on it, and gradients flow back
    through it. No hook is left on the model, also if the model raises an exception.
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


def cases(generator: Generator) -> list[Case]:
    """Layers before and after work in place, at two depths."""
    made = []
    for batch, inputs, width in ((3, 4, 5), (2, 6, 3), (4, 3, 4)):
        model = nn.Sequential(
            nn.Sequential(nn.Linear(inputs, width), nn.ReLU(inplace=True)),
            nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, 2)),
        ).double()
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=generator)
        for name in ("0.0", "1.0"):
            made.append(
                {"model": model, "name": name, "images": draws.normal(generator, batch, inputs)}
            )
    return made


drill = Drill(
    id="capture-features",
    title="Read a layer",
    task=(
        "You need the output of an inner layer of a model that you may not edit. Write the function that runs the "
        "model and returns it."
    ),
    minutes=8,
    level="core",
    hints=(
        "Modules can call a function of yours when they have run. Who removes it afterwards?",
        "model.get_submodule(name).register_forward_hook(f), with f(module, inputs, output); handle.remove() in "
        "finally.",
        "Keep output.clone(), not output and not output.detach(): a later ReLU(inplace=True) writes into the same "
        "memory.",
    ),
    explanation=(
        "One forward pass, and one copy of the features. Three traps. A hook that stays is called in every later "
        "run, keeps tensors alive and slows the model, so it is removed in finally. A detached output gives a "
        "loss without a gradient for the student. And nn.ReLU(inplace=True) after the layer overwrites what was "
        "captured, in silence: the clone keeps the layer's value and stays in the graph. The interviewer listens "
        "for finally, and for why not to edit the model. For many layers a context manager over one pass is "
        "better: kdlearn's Taps."
    ),
    reference=capture_features,
    cases=cases,
    gradients=("images",),
)


@drill.alternative
def as_a_context(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """The handle of a hook is a context manager."""
    box: dict[str, Tensor] = {}

    def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
        box["output"] = 1 * output

    with dict(model.named_modules())[name].register_forward_hook(keep):
        model(images)
    return box["output"]


@drill.alternative
def by_wrapping(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Replace the submodule's forward for one call."""
    layer = model.get_submodule(name)
    seen: list[Tensor] = []
    original = layer.forward

    def spying(*arguments: Any) -> Tensor:
        output = original(*arguments)
        seen.append(output + 0)
        return output

    layer.forward = spying
    try:
        model(images)
    finally:
        del layer.forward
    return seen[0]


def _captured(
    model: nn.Module,
    name: str,
    images: Tensor,
    take: Any,
    *,
    leave: bool = False,
    pre: bool = False,
) -> Tensor:
    """Capture with another function."""
    seen: list[Tensor] = []
    layer = model.get_submodule(name)

    def keep(module: nn.Module, inputs: Any, output: Any = None) -> None:
        seen.append(take(inputs[0] if pre else output))

    handle = layer.register_forward_pre_hook(keep) if pre else layer.register_forward_hook(keep)
    model(images)
    if not leave:
        handle.remove()
    return seen[0]


@drill.must(
    "removes its hook when the model raises",
    "hook-left-after-error",
    "a hook is left on the model when its forward raises: remove it in a finally block, or use the handle as a context "
    "manager.",
)
def cleans_up(solution: Solution, generator: Generator) -> bool:
    """Whether an error leaves no hook."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(3, 3)).double()
    try:
        solution(model, "0", draws.normal(generator, 1, 2))
    except RuntimeError:
        return all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
    return False


@drill.mistake(
    "hook-left-after-error",
    "a hook is left on the model when its forward raises: remove it in a finally block, or use the handle as a context "
    "manager.",
)
def no_finally(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Remove the hook on the good path alone."""
    return _captured(model, name, images, torch.clone)


@drill.mistake(
    "hook-left",
    "the hook is left on the model: it runs in every later call and keeps its tensors alive. Remove its handle, "
    "in a finally block.",
)
def hook_left(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Never remove the hook."""
    return _captured(model, name, images, torch.clone, leave=True)


@drill.mistake(
    "detached",
    "the captured features carry no gradient: a loss on them would not train the student. Clone, do not detach.",
)
def detached(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Detach the output."""
    seen: list[Tensor] = []
    with model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: seen.append(output.detach().clone())
    ):
        model(images)
    return seen[0]


@drill.mistake(
    "overwritten",
    "the features are those after the next layer: nn.ReLU(inplace=True) wrote into the tensor that you kept. Keep "
    "a clone.",
)
def overwritten(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Keep the tensor itself."""
    seen: list[Tensor] = []
    with model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: seen.append(output)
    ):
        model(images)
    return seen[0]


@drill.mistake(
    "input-captured",
    "this is the input of the submodule, not its output: a forward hook gets (module, inputs, output).",
)
def input_captured(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Take the second argument of the hook."""
    seen: list[Tensor] = []
    with model.get_submodule(name).register_forward_hook(
        lambda module, inputs, output: seen.append(inputs[0].clone())
    ):
        model(images)
    return seen[0]


@drill.mistake(
    "model-output",
    "this is the output of the whole model, not of the layer that was asked for.",
)
def model_output(model: nn.Module, name: str, images: Tensor) -> Tensor:
    """Return what the model gives."""
    model.get_submodule(name)
    output: Tensor = model(images)
    return output
