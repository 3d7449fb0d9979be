"""A step on two samples before anything is paid for, so that what cannot work is told first."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from kdlearn.core.checks import check_logit_values
from kdlearn.core.inputs import (
    buffers_kept,
    call,
    evaluating,
    map_tensors,
    place,
    tensors_in,
    unchanged,
)
from kdlearn.core.randomness import separate_randomness
from kdlearn.data.batch import Batch
from kdlearn.data.samples import ALONE, InMemory, Samples
from kdlearn.data.views import FixedCopies, Views, shown
from kdlearn.distill.distiller import DistillationLoss
from kdlearn.distill.terms import label_cross_entropy
from kdlearn.measure.metrics import accuracy, evaluate
from kdlearn.training.engine import Run


def rehearse(
    run: Run,
    samples: Samples,
    views: Views,
    held_out: Samples | None,
    metric: Callable[[Tensor, Any], float],
) -> None:
    """Take a step on two samples without updating anything, and measure two held-out samples.

    Weights, statistics, gradients and random numbers are afterwards as they were.

    Raises:
        TypeError: the model or a loss cannot take the data, or the metric the labels.
        ValueError: a term has no gradient, or one to parameters that are not trained, returns no
            single number, or changes in place what other terms see; a layer of the student with
            weights to train has none.
    """
    model = run.distiller
    with separate_randomness(0), evaluating(model), buffers_kept(model):
        few = _few(samples)
        if _are_tokens(few.labels):
            _check_shifted(samples)
        loss, cut_off = _tried(run, samples, views, few)
        if cut_off or not all(part.requires_grad for part in loss.parts.values()):
            # A loss may find nothing to compare in two samples, such as a pair of one class, and
            # they may reach no gradient of a part that is chosen by sample.
            loss, cut_off = _tried(run, samples, views, samples.few(32))
        for name, part in loss.parts.items():
            if not part.requires_grad:
                raise ValueError(
                    f"term {name!r} has no gradient, so it trains nothing: its loss must depend on "
                    "the student's logits or layers, without detach(), argmax, or a no_grad() or "
                    "inference_mode() around."
                )
            strange = _parameters_of(part) - set(model.parameters())
            if strange:
                raise ValueError(
                    f"term {name!r} goes through {len(strange)} parameters that are neither the "
                    f"student's nor its own, one of shape {tuple(strange.pop().shape)}, and "
                    "nothing would train them: pass a loss with parameters as a module, not inside "
                    "a lambda, or call requires_grad_(False) on what shall stay as it is."
                )
        if cut_off:
            raise ValueError(
                f"layer {cut_off[0]!r} of the student has weights to train and runs under "
                "torch.no_grad() in forward, where nothing trains them: leave no_grad out, or call "
                "requires_grad_(False) on what shall stay as it is."
            )
        loss.total.backward()
        sparse = any(p.grad is not None and p.grad.is_sparse for p in model.parameters())
        model.zero_grad(set_to_none=True)
        if sparse:
            raise ValueError(
                "a gradient of the student is sparse, and torch has no norm of it, by which a "
                "broken one is seen: make the embedding with sparse=False."
            )
        if held_out is not None:
            _try_metric(run, held_out, metric)


def _tried(
    run: Run, samples: Samples, views: Views, few: Batch
) -> tuple[DistillationLoss, list[str]]:
    """Return the loss on a few samples, and the layers that no_grad alone leaves untrained."""
    model, batch = run.distiller, shown(views, few)
    if isinstance(views, FixedCopies) and few.rows is not None:
        # The rows of the last copy: a loss that was made for fewer is told.
        batch = replace(batch, rows=few.rows + (len(views) - 1) * len(samples))
    batch = batch.to(run.device)
    try:
        with warnings.catch_warnings():
            # (B, 1) against (B,): torch compares every sample with every other, and warns.
            warnings.filterwarnings("error", message="Using a target size")
            with run.autocast():
                taught = model.train().teach(batch)
                with _without_graph(model.student) as ran:
                    said = model.study(batch)
                seen = [said.logits, said.taps, taught.logits, taught.taps, taught.kept]
                if any(term.loss is label_cross_entropy for term in model.terms):
                    check_logit_values(said.logits, "the student's logits")
                with unchanged([*seen, batch.labels], "a loss"):
                    loss = model.loss(said, taught)
    except (TypeError, RuntimeError, UserWarning) as error:
        notes = getattr(error, "__notes__", [])
        if any(note.startswith("in term ") for note in notes) and isinstance(error, TypeError):
            raise  # of the loss itself, which says what it misses
        explained = _explained(error, batch, samples.name, model.student)
        for note in notes if explained is not error else ():
            explained.add_note(note)
        raise explained from error
    return loss, _untrained(ran, loss, model)


@contextmanager
def _without_graph(student: nn.Module) -> Iterator[dict[str, nn.Module]]:
    """Collect the layers with weights to train of their own that run without a graph."""
    found: dict[str, nn.Module] = {}

    def note(name: str, part: nn.Module) -> None:
        if not torch.is_grad_enabled():
            found[name] = part

    parts = dict(student.named_modules())
    if any(hasattr(part, "_orig_mod") or part._compiled_call_impl for part in parts.values()):
        parts = {}  # a compiler would take the hooks into its code
    hooks = [
        part.register_forward_hook(lambda part, *_, name=name: note(name, part))
        for name, part in parts.items()
        if any(p.requires_grad for p in part.parameters(recurse=False))
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _untrained(ran: dict[str, nn.Module], loss: DistillationLoss, model: nn.Module) -> list[str]:
    """Name the layers if none gets a gradient; a checkpoint that re-enters gives them one."""
    if not ran or not loss.total.requires_grad:
        return []
    loss.total.backward(retain_graph=True)
    grads = {name: [p.grad for p in part.parameters(recurse=False)] for name, part in ran.items()}
    model.zero_grad(set_to_none=True)
    # Where one has, such as an expert that was chosen, others have with other samples.
    is_trained = any(grad is not None for own in grads.values() for grad in own)
    return [] if is_trained else list(grads)


def _parameters_of(value: Tensor) -> set[nn.Parameter]:
    """Return the parameters to which a gradient of a value goes."""
    found, seen, left = set(), set(), [value.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in seen:
            seen.add(node)
            variable = getattr(node, "variable", None)
            if isinstance(variable, nn.Parameter):
                found.add(variable)
            left += [before for before, _ in node.next_functions]
    return found


def _few(samples: Samples) -> Batch:
    """Return two samples, of the outermost classes where known; more where no label counts."""
    few = _outermost(samples) or samples.few(2)
    for count in (16, 128, 1024):
        if not _are_tokens(few.labels) or bool((few.labels != -100).any()):
            break
        few = samples.few(count)
    return few


def _outermost(samples: Samples) -> Batch | None:
    """Return the samples with the lowest and the highest label: one that is no class is told."""
    if not isinstance(samples, InMemory):
        return None
    labels = samples.batch.labels
    if not isinstance(labels, Tensor) or labels.is_floating_point() or not labels.numel():
        return None
    counted = labels.masked_fill(labels == -100, 0).reshape(len(labels), -1)
    low, high = int(counted.amin(1).argmin()), int(counted.amax(1).argmax())
    other = high if high != low else (low + 1) % len(labels)
    return next(samples.load([torch.tensor([low, other]).unique()], ALONE, (0,)))


def _check_shifted(samples: Samples) -> None:
    """Refuse labels of tokens that are the tokens, each in its own place."""
    few = samples.few(8)
    tokens = few.inputs.get("input_ids") if isinstance(few.inputs, Mapping) else few.inputs
    is_decoder_apart = isinstance(few.inputs, Mapping) and any("decoder" in n for n in few.inputs)
    if not isinstance(tokens, Tensor) or tokens.shape != few.labels.shape or is_decoder_apart:
        return
    counted = few.labels != -100
    # Fewer may be equal by chance, as words are that a masked language model is shown.
    if counted.sum() >= 8 and torch.equal(tokens[counted], few.labels[counted]):
        raise ValueError(
            f"the labels of {samples.name} are the tokens themselves, each in its own place, and a "
            "model would learn to copy them: a language model learns the next token, shift them by "
            "one, as kdlearn.training.next_tokens does."
        )


def _are_tokens(labels: Any) -> bool:
    return isinstance(labels, Tensor) and labels.dim() == 2 and not labels.is_floating_point()


def _try_metric(run: Run, held_out: Samples, metric: Callable[[Tensor, Any], float]) -> None:
    student, batch = run.distiller.student, held_out.few(2).to(run.device)
    try:
        with torch.no_grad():
            call(student.eval(), batch.inputs)
    except (TypeError, ValueError, RuntimeError) as error:
        explained = _explained(error, batch, held_out.name, student)
        if explained is error:
            explained = type(error)(f"the student cannot run on {held_out.name}: {error}")
        raise explained from error
    if _are_tokens(batch.labels) and not isinstance(held_out, InMemory):
        _check_lengths(held_out)

    def of_all(logits: Tensor, labels: Any) -> float:
        if not isinstance(held_out, InMemory):
            return metric(logits, labels)
        # Answers to one sample stand for all: what is tried are the labels, wherever they stand.
        labels = map_tensors(torch.clone, place(held_out.batch.labels, logits.device))
        return metric(logits[:1].repeat(len(held_out), *[1] * (logits.dim() - 1)), labels)

    try:
        try:
            evaluate(student, Samples.of(batch, held_out.name), of_all)
        except (TypeError, ValueError, RuntimeError):
            if metric is accuracy:
                raise
            # Some want every class among the labels, or answers that differ.
            evaluate(student, held_out, metric)
    except (TypeError, ValueError, RuntimeError) as error:
        named = getattr(metric, "__name__", "metric")
        raise type(error)(
            f"{held_out.name} cannot be measured by {named}: {error} Pass metric=, a function of "
            "(logits, labels) that returns a number."
        ) from error


def _check_lengths(held_out: Samples) -> None:
    """Refuse batches of tokens that no metric can get in one tensor."""
    lengths, some_left_out = set(), False
    for batch in held_out.in_order():
        lengths.add(batch.labels.shape[1])
        some_left_out |= bool((batch.labels == -100).any())
    if len(lengths) > 1 and not some_left_out:
        raise ValueError(
            f"batches of {held_out.name} have {sorted(lengths)} tokens, and the metric gets all "
            "samples in one tensor: pad them to one length, with labels of -100."
        )


# How torch calls types of whole numbers in its errors.
_TYPES = {
    torch.bool: "bool Bool",
    torch.int16: "short Short",
    torch.int32: "int Int",
    torch.int64: "long Long",
}


def _explained(error: Exception, batch: Batch, name: str, student: nn.Module) -> Exception:
    """Return what torch means where its words do not name the data."""
    if isinstance(error, UserWarning):
        return ValueError(
            f"the loss spreads one of its inputs (labels of {name}, or a layer) over another of "
            "a different shape: bring them to one shape, as by labels.unsqueeze(1) or a projector. "
            f"({str(error).splitlines()[0]})"
        )
    kinds = {tensor.dtype for tensor in tensors_in(batch.inputs)}
    whole = [kind for kind in kinds if not kind.is_floating_point and not kind.is_complex]
    # Of tokens, other types than theirs may be the matter.
    about = " ".join(_TYPES[kind] for kind in whole if kind in _TYPES).split()
    said = str(error).replace(":", " ").replace(",", " ").split()
    is_named = isinstance(batch.inputs, Tensor) and any(word in said for word in about)
    if torch.uint8 in kinds or (is_named and isinstance(error, RuntimeError)):
        kind = torch.uint8 if torch.uint8 in kinds else whole[0]
        where = ", or convert in augment" if name == "train" else " (augment is for train alone)"
        return TypeError(
            f"the inputs of {name} are {kind} and the model wants floating point: use "
            f"images.float() / 255{where}. ({error})"
        )
    own = {p.dtype for p in student.parameters()}
    others = [kind for kind in kinds - own if kind.is_floating_point or kind.is_complex]
    if others and isinstance(error, RuntimeError) and "type" in str(error):
        return TypeError(
            f"the inputs of {name} are {others[0]} and the student's weights "
            f"{', '.join(map(str, own))}: bring the inputs to that by .to(); for half precision "
            f"pass engine=Engine(precision='bf16'). ({error})"
        )
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        return TypeError(
            f"the model does not take the named inputs of {name}: expected (inputs, labels), or "
            f"names that its forward has. ({error})"
        )
    return error
