"""Make a transformer give its attention maps, whatever library wrote it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kdlearn.core.inputs import Inputs, evaluating, place, run


def attention_layers(model: nn.Module, example: Inputs) -> list[str]:
    r"""Ask a transformer for its attention maps, and name the taps that read them.

    Fast attention kernels never form the map :math:`\sigma(QK^\top / \sqrt{d})`; a model that uses
    one gives ``None`` for it, or nothing at all. This asks for the slower form that does, runs the
    model once on an example, and looks for outputs of modules that are maps: floating point, (B,
    heads, L, S), not negative, each row of sum 1.

    Convention
        Asked are Hugging Face models (``set_attn_implementation("eager")``),
        `nn.MultiheadAttention` also inside `nn.TransformerEncoder` (weights wanted, one map per
        head), and modules with a switch ``fused_attn`` (timm). The switches stay set: the model
        gives maps from now on, and computes the same logits up to rounding. Names are in the order
        of computation and may be handed to `kdlearn.distill.Taps`, `kdlearn.distill.layer_term` and
        `kdlearn.store.cache_teacher`. Where a tensor passes through several modules, the first is
        named. The model runs in ``eval()`` and without gradient, and is put back into its mode.
        In training, Hugging Face models give the map after dropout: with
        ``attention_probs_dropout_prob`` above 0, a student's map is noisy and its rows do not sum
        to 1.

    Args:
        model: the transformer.
        example: a small batch of inputs, with more than one token a sample.

    Raises:
        ValueError: no map was found.

    Example:
        >>> layer = nn.TransformerEncoderLayer(8, nhead=2, dim_feedforward=16, batch_first=True)
        >>> model = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        >>> attention_layers(model, torch.randn(3, 5, 8))
        ['layers.0.self_attn[1]', 'layers.1.self_attn[1]']
    """
    _ask(model)
    found: dict[int, tuple[str, Tensor]] = {}
    handles = [
        module.register_forward_hook(_finder(path, found))
        for path, module in model.named_modules()
        if path
    ]
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with evaluating(model), torch.no_grad():
            run(model, place(example, device))
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(
            f"no module of {type(model).__name__} gives an attention map (B, heads, L, S) with "
            "rows of sum 1. Where its code calls scaled_dot_product_attention, no map exists: "
            "compute softmax(QK^T / sqrt(d)) in a module of its own, such as "
            "nn.Softmax(dim=-1), and tap that. For Hugging Face models, load with "
            "attn_implementation='eager'."
        )
    return [name for name, _ in found.values()]


def _ask(model: nn.Module) -> None:
    if hasattr(model, "set_attn_implementation"):
        model.set_attn_implementation("eager")  # type: ignore[operator]
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            setattr(module, "fused_attn", False)  # noqa: B010  an attribute that not every module has
        if isinstance(module, nn.TransformerEncoder):
            # Nested tensors exist on the fast path alone, which skips the attention module and its
            # hooks.
            module.enable_nested_tensor = module.use_nested_tensor = False
        if isinstance(module, nn.MultiheadAttention) and _want_weights not in (
            module._forward_pre_hooks.values()
        ):
            module.register_forward_pre_hook(_want_weights, with_kwargs=True)


def _want_weights(
    module: nn.Module, arguments: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    # After query, key and value, callers may pass the options by position: (key_padding_mask,
    # need_weights).
    options = {**options, "average_attn_weights": False}
    if len(arguments) > 4:
        return (*arguments[:4], True, *arguments[5:]), options
    return arguments, {**options, "need_weights": True}


def _finder(path: str, found: dict[int, tuple[str, Tensor]]) -> Any:
    def look(module: nn.Module, arguments: Any, output: Any) -> None:
        for pick, part in _parts(output):
            if isinstance(part, Tensor) and part.data_ptr() not in found and _is_map(part):
                # The tensor is kept, so that no later one can have its address.
                found[part.data_ptr()] = (path + pick, part)

    return look


def _parts(output: Any) -> list[tuple[str, Any]]:
    if isinstance(output, Mapping):
        return [(f"[{name}]", part) for name, part in output.items()]
    if isinstance(output, tuple | list):
        return [(f"[{number}]", part) for number, part in enumerate(output)]
    return [("", output)]


def _is_map(part: Tensor) -> bool:
    if part.dim() != 4 or not part.is_floating_point() or part.shape[-1] < 2:
        return False
    rows = part.float().sum(dim=-1)
    return bool((part >= 0).all()) and torch.allclose(rows, torch.ones_like(rows), atol=1e-2)
