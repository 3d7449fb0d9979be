"""Bad inputs and what they are answered: a sentence that says what was given, what was expected, what to do.

Read the tables as documentation. A row is a mistake in words, the call that makes it, the kind of
exception, and what the message must say.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import nn

from kdlearn import data, losses, measure
from kdlearn.distill import Distiller, label_term, layer_term, logit_term
from kdlearn.distill.taps import Taps
from kdlearn.distill.teachers import LiveTeacher
from kdlearn.models import (
    Seq2Seq,
    SlimWRN,
    SmallCNN,
    TinyTransformer,
    copy_matching_weights,
)
from kdlearn.store.cache import (
    AttentionMap,
    CacheError,
    Features,
    FixedCopies,
    Relation,
    Sampled,
    TopK,
    cache_teacher,
    open_cache,
)
from kdlearn.training.checkpoints import CheckpointError, Checkpoints
from kdlearn.training.engine import Engine
from kdlearn.training.fit import fit

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 2.0], [1.0, 0.0, 0.0]])
LABELS = torch.tensor([0, 1, 2, 0])
ONE_HOT = torch.eye(3)[LABELS]
NAN = float("nan")
MAPS = torch.ones(1, 4, 4)
INPUTS = torch.linspace(-1, 1, 16).view(4, 4)
IMAGES = torch.linspace(0, 1, 2 * 16 * 16).view(2, 1, 16, 16)
SCORES = pd.DataFrame({"seed": [0, 1], "method": ["KD", "KD"], "accuracy": [80.0, 82.0]})


def features(*shape: int) -> torch.Tensor:
    return torch.linspace(-1, 1, torch.Size(shape).numel()).view(shape)


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))


def small_fit(model=None, train=(INPUTS, LABELS), **options):
    return fit(model or net(), train, **{"epochs": 1, "progress": False, **options})


def store(folder, teacher=None, inputs=INPUTS, **options):
    torch.manual_seed(0)
    return cache_teacher(teacher or net(), inputs, folder, progress=False, **options)


def kd(student=None, teacher=None) -> Distiller:
    return Distiller(
        student or net(), teacher or net(), [logit_term("KD", losses.soft_target_loss)]
    )


def same_object():
    model = net()
    return Distiller(model, model, [label_term()])


def resumed_with_another_model(folder):
    small_fit(checkpoints=Checkpoints(folder))
    small_fit(nn.Linear(4, 3), checkpoints=Checkpoints(folder), resume=True)


def begun_twice(folder):
    small_fit(checkpoints=Checkpoints(folder))
    small_fit(checkpoints=Checkpoints(folder))


def fit_on_a_cache(folder, *, train=(INPUTS, LABELS), **options):
    small_fit(kd(teacher=store(folder)), train, **options)


def optimizer_without_the_projector():
    student, projector = net(), nn.Linear(3, 3)

    class Projected(nn.Module):
        def __init__(self):
            super().__init__()
            self.projector = projector

        def forward(self, student_features, teacher_features):
            return losses.hint_loss(self.projector(student_features), teacher_features)

    model = Distiller(student, net(), [layer_term("hint", Projected(), ["0"])])
    small_fit(model, optimizer=torch.optim.SGD(student.parameters(), lr=0.1))


def refused(name: str, call: Callable, error: type[BaseException], *said: str):
    return pytest.param(call, error, said, id=name)


# --- Taps, terms and the distiller ----------------------------------------------------------------
DISTILLING = [
    refused(
        "a layer has a typing mistake",
        lambda folder: Taps(SmallCNN(2), ["gruop1"]),
        KeyError,
        r"no module 'gruop1'",
        r"close are 'group1'",
    ),
    refused(
        "one layer is named without a list",
        lambda folder: Taps(SmallCNN(2), "group1"),
        ValueError,
        r"is the string 'group1'",
        r"pass a list, \['group1'\]",
    ),
    refused(
        "a class is tapped instead of a model",
        lambda folder: Taps(SmallCNN, ["group1"]),
        TypeError,
        r"expected a module, such as SmallCNN\(8\)",
    ),
    refused(
        "a live teacher lacks a layer",
        lambda folder: LiveTeacher(net(), ["group1"]),
        KeyError,
        r"no module 'group1'",
        r"close are '0'",
    ),
    refused(
        "student and teacher are one object",
        lambda folder: same_object(),
        ValueError,
        r"student and teacher are one object",
        r"copy\.deepcopy",
    ),
    refused(
        "the teacher is missing",
        lambda folder: Distiller(net(), None, [label_term()]),
        TypeError,
        r"teacher is None",
        r"expected a trained module, or stored outputs",
    ),
    refused(
        "the teacher is a class",
        lambda folder: Distiller(net(), SmallCNN, [label_term()]),
        TypeError,
        r"teacher is <class",
        r"expected a trained module",
    ),
    refused(
        "there are no terms",
        lambda folder: Distiller(net(), net(), []),
        ValueError,
        r"no terms",
        r"\[label_term\(\)\]",
    ),
    refused(
        "one term stands without a list",
        lambda folder: Distiller(net(), net(), label_term()),
        TypeError,
        r"terms must be a list",
        r"label_term, logit_term or layer_term",
    ),
    refused(
        "losses stand where terms are expected",
        lambda folder: Distiller(net(), net(), [losses.soft_target_loss]),
        TypeError,
        r"terms must be a list of terms",
        r"label_term, logit_term or layer_term",
    ),
    refused(
        "two terms share a name",
        lambda folder: Distiller(net(), net(), [label_term(), label_term()]),
        ValueError,
        r"share the names \['labels'\]",
        r"a name of its own",
    ),
    refused(
        "a weight is negative",
        lambda folder: label_term(-1.0),
        ValueError,
        r"'labels' has weight -1\.0",
        r"finite number >= 0",
    ),
    refused(
        "a weight is a text",
        lambda folder: label_term("1"),
        TypeError,
        r"weight of term 'labels' is '1'",
        r"expected one number",
    ),
    refused(
        "a loss is named instead of passed",
        lambda folder: logit_term("KD", "soft_target_loss"),
        TypeError,
        r"term 'KD' has the loss 'soft_target_loss'",
        r"expected a function",
    ),
    refused(
        "name and loss are swapped",
        lambda folder: logit_term(losses.soft_target_loss, "KD"),
        TypeError,
        r"a term is named <function soft_target_loss",
        r"comes before the loss",
    ),
    refused(
        "a layer term has no layers",
        lambda folder: layer_term("hint", losses.hint_loss, []),
        ValueError,
        r"'hint' compares no layers",
        r"'student_layer': 'teacher_layer'",
    ),
    refused(
        "a term names a layer that the student lacks",
        lambda folder: Distiller(net(), net(), [layer_term("hint", losses.hint_loss, ["9"])]),
        KeyError,
        r"student: the model has no module '9'",
        r"close are",
    ),
    refused(
        "labels are left out where a term reads them",
        lambda folder: Distiller(net(), net(), [label_term()])(INPUTS),
        ValueError,
        r"'labels' reads the labels and none were given",
        r"distiller\(inputs, labels\)",
    ),
    refused(
        "a model returns a tuple",
        lambda folder: kd(nn.GRU(4, 3), nn.GRU(4, 3))(INPUTS),
        TypeError,
        r"GRU returns a tuple",
        r"expected logits",
        r"wrap it in a module",
    ),
]

# --- Training, its engine and its checkpoints -----------------------------------------------------
TRAINING = [
    refused(
        "training is asked for 0 epochs",
        lambda folder: small_fit(epochs=0),
        ValueError,
        r"epochs is 0: expected a whole number >= 1",
    ),
    refused(
        "the batch size is 0",
        lambda folder: small_fit(batch_size=0),
        ValueError,
        r"batch_size is 0: expected a whole number >= 1",
    ),
    refused(
        "the learning rate is negative",
        lambda folder: small_fit(learning_rate=-1e-3),
        ValueError,
        r"learning_rate is -0\.001: expected a finite number > 0",
    ),
    refused(
        "the learning rate is infinite",
        lambda folder: small_fit(learning_rate=float("inf")),
        ValueError,
        r"learning_rate is inf: expected a finite number > 0",
    ),
    refused(
        "the seed is missing",
        lambda folder: small_fit(seed=None),
        TypeError,
        r"seed is None: expected a whole number",
    ),
    refused(
        "there is no image to train on",
        lambda folder: small_fit(train=(INPUTS[:0], LABELS[:0])),
        ValueError,
        r"train is empty: expected at least one image",
    ),
    refused(
        "images are bytes",
        lambda folder: small_fit(train=((255 * INPUTS.abs()).to(torch.uint8), LABELS)),
        TypeError,
        r"the images of train are torch\.uint8",
        r"images\.float\(\) / 255",
    ),
    refused(
        "labels are one-hot rows of whole numbers",
        lambda folder: small_fit(train=(INPUTS, ONE_HOT.long())),
        TypeError,
        r"labels have shape \(4, 3\), one for each class",
        r"labels\.argmax\(1\)",
    ),
    refused(
        "an augmentation forgets its return",
        lambda folder: small_fit(augment=lambda images, generator: None),
        ValueError,
        r"augment gave NoneType for 4 labels",
        r"expected the changed batch",
    ),
    refused(
        "an augmentation loses images",
        lambda folder: small_fit(augment=lambda images, generator: images[:2]),
        ValueError,
        r"augment gave 2 images for 4 labels",
    ),
    refused(
        "predictions are asked of a NumPy array",
        lambda folder: measure.predict(net(), INPUTS.numpy()),
        TypeError,
        r"the inputs are a ndarray: expected a tensor",
    ),
    refused(
        "a label has no class",
        lambda folder: measure.accuracy(LOGITS, LABELS + 2),
        ValueError,
        r"labels go from 2 to 4, but 3 classes are numbered 0 to 2",
    ),
    refused(
        "images come without labels",
        lambda folder: small_fit(train=INPUTS),
        TypeError,
        r"train is a Tensor",
        r"expected the tuple \(images, labels\)",
    ),
    refused(
        "images and labels are a list instead of a tuple",
        lambda folder: small_fit(train=[INPUTS, LABELS]),
        TypeError,
        r"train is a list",
        r"expected the tuple \(images, labels\)",
    ),
    refused(
        "images and labels are NumPy arrays",
        lambda folder: small_fit(train=(INPUTS.numpy(), LABELS.numpy())),
        TypeError,
        r"train holds a ndarray and a ndarray",
        r"torch\.as_tensor",
    ),
    refused(
        "there are fewer labels than images",
        lambda folder: small_fit(train=(INPUTS, LABELS[:2])),
        ValueError,
        r"4 images and 2 labels: expected one label an image",
    ),
    refused(
        "training labels are floating point",
        lambda folder: small_fit(train=(INPUTS, LABELS.float())),
        TypeError,
        r"labels of train are torch\.float32 of shape \(4,\)",
        r"call \.long\(\)",
    ),
    refused(
        "training labels stand in a column",
        lambda folder: small_fit(train=(INPUTS, LABELS[:, None])),
        ValueError,
        r"labels of train have shape \(4, 1\)",
        r"squeeze\(1\)",
    ),
    refused(
        "a training label is no class of the model",
        lambda folder: small_fit(train=(INPUTS, LABELS + 1)),
        IndexError,
        r"labels go from 1 to 3 and the model has no such class",
        r"number the classes from 0",
    ),
    refused(
        "an image holds NaN",
        lambda folder: small_fit(train=(INPUTS * NAN, LABELS)),
        FloatingPointError,
        r"epoch 1, step 1: term 'labels' is nan",
        r"Check the inputs for NaN",
    ),
    refused(
        "validation images and labels differ in number",
        lambda folder: small_fit(validation=(INPUTS, LABELS[:2])),
        ValueError,
        r"validation has 4 images and 2 labels",
    ),
    refused(
        "a class is trained instead of a model",
        lambda folder: fit(SmallCNN, (INPUTS, LABELS)),
        TypeError,
        r"model is <class",
        r"expected a Module",
    ),
    refused(
        "the model is frozen",
        lambda folder: small_fit(net().requires_grad_(False)),
        ValueError,
        r"no trainable parameter: nothing to fit",
    ),
    refused(
        "the optimizer belongs to another model",
        lambda folder: small_fit(optimizer=torch.optim.SGD(net().parameters(), lr=0.1)),
        ValueError,
        r"lacks 4 trainable parameters of the model, first 0\.weight",
        r"build it from model\.parameters\(\)",
    ),
    refused(
        "the optimizer forgets the projector",
        lambda folder: optimizer_without_the_projector(),
        ValueError,
        r"lacks 2 trainable parameters of the model, first projectors\.hint\.projector",
        r"so that projectors are trained",
    ),
    refused(
        "the engine is a dict",
        lambda folder: small_fit(engine={"precision": "bf16"}),
        TypeError,
        r"engine is \{'precision': 'bf16'\}",
        r"engine=Engine\(",
    ),
    refused(
        "the precision is unknown",
        lambda folder: Engine(precision="float16"),
        ValueError,
        r"precision is 'float16': expected 'fp32', 'bf16' or 'fp16'",
    ),
    refused(
        "the largest gradient is a text",
        lambda folder: Engine(clip_norm="1"),
        TypeError,
        r"clip_norm is '1', a str: expected one number",
    ),
    refused(
        "a batch is cut into more pieces than it has images",
        lambda folder: small_fit(batch_size=2, engine=Engine(accumulate=4)),
        ValueError,
        r"2 samples for 1 processes x 4 pieces",
        r"larger batches or a smaller accumulate",
    ),
    refused(
        "the checkpoints are a folder's name",
        lambda folder: small_fit(checkpoints=str(folder)),
        TypeError,
        r"checkpoints is '",
        r"checkpoints=Checkpoints\(",
    ),
    refused(
        "no checkpoint is to be kept",
        lambda folder: Checkpoints(folder, keep=0),
        ValueError,
        r"keep is 0: expected a whole number >= 1",
    ),
    refused(
        "the folder of checkpoints is a file",
        lambda folder: small_fit(checkpoints=Checkpoints(folder / "a file")),
        CheckpointError,
        r"cannot be written to .*a file",
        r"Name another folder",
    ),
    refused(
        "a run goes on without checkpoints",
        lambda folder: small_fit(resume=True),
        ValueError,
        r"resume was given without checkpoints",
        r"checkpoints=Checkpoints\(folder\)",
    ),
    refused(
        "a run goes on from a checkpoint that is not there",
        lambda folder: small_fit(checkpoints=Checkpoints(folder / "run"), resume="nowhere"),
        CheckpointError,
        r"nowhere is no checkpoint: state\.json is not there",
    ),
    refused(
        "a run begins where another has saved",
        lambda folder: begun_twice(folder / "run"),
        ValueError,
        r"holds checkpoints of an earlier run",
        r"resume=True to go on, or name another folder",
    ),
    refused(
        "a run goes on with another model",
        lambda folder: resumed_with_another_model(folder / "run"),
        CheckpointError,
        r"belongs to another run",
        r"other parameters",
        r"use another folder",
    ),
]

# --- Stored teachers ------------------------------------------------------------------------------
CACHING = [
    refused(
        "a cache is to keep no class",
        lambda folder: TopK(0),
        ValueError,
        r"k is 0: expected a whole number >= 1",
    ),
    refused(
        "a cache is to keep half a class",
        lambda folder: TopK(2.5),
        TypeError,
        r"k is 2\.5: expected a whole number >= 1",
    ),
    refused(
        "a cache is to keep more classes than there are",
        lambda folder: store(folder / "cache", logits=TopK(9)),
        ValueError,
        r"k is 9 and there are 3 classes",
        r"keep at most so many",
    ),
    refused(
        "a cache is to draw nothing",
        lambda folder: Sampled(0),
        ValueError,
        r"draws is 0: expected a whole number >= 1",
    ),
    refused(
        "a relation has no heads",
        lambda folder: Relation(0),
        ValueError,
        r"heads is 0: expected a whole number >= 1",
    ),
    refused(
        "a stored map has the power 0",
        lambda folder: AttentionMap(p=0),
        ValueError,
        r"p is 0: expected a number from 1",
    ),
    refused(
        "there are no fixed copies",
        lambda folder: FixedCopies(data.RandomShift(), ()),
        ValueError,
        r"seeds are \(\): expected at least one",
    ),
    refused(
        "fixed copies are given as a number",
        lambda folder: FixedCopies(data.RandomShift(), 3),
        TypeError,
        r"seeds is 3",
        r"range\(3\)",
    ),
    refused(
        "fixed copies come from a lambda",
        lambda folder: store(folder / "cache", copies=FixedCopies(lambda images, _: images, (0,))),
        ValueError,
        r"has no name that lasts",
        r"a dataclass or a function of a module",
    ),
    refused(
        "a cache is made of images and labels",
        lambda folder: store(folder / "cache", inputs=(INPUTS, LABELS)),
        TypeError,
        r"inputs are a tuple",
        r"pass the images alone",
    ),
    refused(
        "a layer is kept as a class",
        lambda folder: store(folder / "cache", layers={"0": AttentionMap}),
        TypeError,
        r"layer '0' is kept as <class",
        r"expected AttentionMap\(\)",
    ),
    refused(
        "a stored layer has a typing mistake",
        lambda folder: store(folder / "cache", layers={"00": Features()}),
        KeyError,
        r"no module '00'",
        r"close are '0'",
    ),
    refused(
        "the stored teacher gives NaN",
        lambda folder: store(folder / "cache", inputs=INPUTS * NAN),
        ValueError,
        r"the teacher gives NaN in 'logits'",
        r"look at its weights and inputs",
    ),
    refused(
        "a cache is opened where there is none",
        lambda folder: open_cache(folder / "cache", teacher=net(), inputs=INPUTS),
        CacheError,
        r"has no teacher cache",
        r"make it with cache_teacher",
    ),
    refused(
        "a folder with other files is to become a cache",
        lambda folder: store(folder),
        CacheError,
        r"files that are no teacher cache, such as a file",
        r"name an empty folder",
    ),
    refused(
        "a cache is trained on other data",
        lambda folder: fit_on_a_cache(folder / "cache", train=(INPUTS + 1, LABELS)),
        ValueError,
        r"saw other samples than train has",
        r"pass the same data",
    ),
    refused(
        "a cache is trained with random augmentation",
        lambda folder: fit_on_a_cache(folder / "cache", augment=data.RandomShift()),
        ValueError,
        r"saw the plain images and augment would change them",
        r"copies=FixedCopies",
    ),
    refused(
        "a cache is trained by batches",
        lambda folder: fit_on_a_cache(folder / "cache", train=[(INPUTS, LABELS)]),
        ValueError,
        r"stored by row",
        r"pass train as tensors",
    ),
]

# --- Measures -------------------------------------------------------------------------------------
MEASURING = [
    refused(
        "there is nothing to predict",
        lambda folder: measure.predict(net(), INPUTS[:0]),
        ValueError,
        r"no images to predict",
        r"check how the split was cut",
    ),
    refused(
        "accuracy has fewer labels than rows",
        lambda folder: measure.accuracy(LOGITS, LABELS[:2]),
        ValueError,
        r"expected one label a row, shape \(4,\), got \(2,\)",
        r"give class numbers",
    ),
    refused(
        "accuracy is measured with one-hot labels",
        lambda folder: measure.accuracy(LOGITS, ONE_HOT),
        ValueError,
        r"shape \(4,\), got \(4, 3\)",
        r"give class numbers",
    ),
    refused(
        "accuracy is measured with floating-point labels",
        lambda folder: measure.accuracy(LOGITS, LABELS.float()),
        TypeError,
        r"labels are torch\.float32",
        r"call \.long\(\)",
    ),
    refused(
        "accuracy is measured on NaN",
        lambda folder: measure.accuracy(LOGITS * NAN, LABELS),
        ValueError,
        r"logits contain NaN",
        r"diverged",
    ),
    refused(
        "agreement is measured on other images",
        lambda folder: measure.agreement(LOGITS, LOGITS[:2]),
        ValueError,
        r"\(4, 3\) and teacher logits \(2, 3\)",
        r"run both on the same images",
    ),
    refused(
        "the divergence is measured at temperature 0",
        lambda folder: measure.kl_to_teacher(LOGITS, LOGITS, temperature=0),
        ValueError,
        r"temperature is 0, expected a positive finite number",
    ),
    refused(
        "calibration is measured in no bins",
        lambda folder: measure.expected_calibration_error(LOGITS, LABELS, bins=0),
        ValueError,
        r"bins must be at least 1, a whole number, got 0",
    ),
    refused(
        "a box is in pixels",
        lambda folder: measure.pointing_game(MAPS, torch.tensor([[0.0, 0.0, 16.0, 16.0]])),
        ValueError,
        r"fractions of the image",
        r"divide pixels by the image's width and height",
    ),
    refused(
        "a box holds NaN",
        lambda folder: measure.energy_in_box(MAPS, torch.tensor([[0.0, 0.0, NAN, 1.0]])),
        ValueError,
        r"boxes must be x0, y0, x1, y1",
    ),
    refused(
        "features stand where maps are expected",
        lambda folder: measure.pointing_game(features(1, 8, 4, 4), torch.rand(1, 4)),
        ValueError,
        r"got \(1, 8, 4, 4\)",
        r"activation_map",
    ),
]

# --- Data, models, recipes and experiments --------------------------------------------------------
MAKING = [
    refused(
        "a part of the digits is unknown",
        lambda folder: data.base_digits("val"),
        KeyError,
        r"no part 'val'",
        r"train, validation, test",
    ),
    refused(
        "a split has fewer labels than images",
        lambda folder: data.Split(INPUTS, LABELS[:2], LABELS),
        ValueError,
        r"one row per image everywhere",
        r"images 4, labels 2, base 4",
    ),
    refused(
        "a split is asked for one image",
        lambda folder: data.Split(INPUTS, LABELS, LABELS)[0],
        TypeError,
        r"got int",
        r"split\.subset\(indices\)",
    ),
    refused(
        "a subset is larger than its split",
        lambda folder: data.balanced_subset(data.Split(INPUTS, LABELS, LABELS), 30),
        ValueError,
        r"class 0 has 2 images, but 10 are needed",
        r"ask for fewer",
    ),
    refused(
        "images to augment are bytes",
        lambda folder: data.RandomAffine()(IMAGES.to(torch.uint8)),
        ValueError,
        r"expected float images",
        r"got torch\.uint8",
    ),
    refused(
        "the mirrored border is wider than the image",
        lambda folder: data.RandomCropFlip(padding=20)(IMAGES),
        ValueError,
        r"padding is 20 and the images have 16 pixels",
    ),
    refused(
        "a network for gray images sees colors",
        lambda folder: SmallCNN(2)(IMAGES.expand(2, 3, 16, 16)),
        ValueError,
        r"shape \(2, 3, 16, 16\): expected \(batch, 1, height, width\)",
        r"channels=",
    ),
    refused(
        "images are smaller than the network's grid",
        lambda folder: SmallCNN(2)(IMAGES[..., :4, :4]),
        ValueError,
        r"shape \(2, 1, 4, 4\)",
        r"at least 8 pixels",
        r"enlarge them",
    ),
    refused(
        "a residual network has two widths",
        lambda folder: SlimWRN((8, 16)),
        ValueError,
        r"3 numbers, one a group, got \(8, 16\)",
    ),
    refused(
        "the heads do not divide the width",
        lambda folder: TinyTransformer(width=10, heads=3),
        ValueError,
        r"3 heads cannot share a width of 10",
    ),
    refused(
        "a sequence is longer than the transformer",
        lambda folder: TinyTransformer(length=4)(torch.zeros(1, 9, dtype=torch.long)),
        ValueError,
        r"9 tokens, the model was made for 4",
        r"length=9",
    ),
    refused(
        "the halves of a decoder's state are not equal",
        lambda folder: Seq2Seq(hidden=3),
        ValueError,
        r"hidden must be even",
        r"got 3",
    ),
    refused(
        "no weight of the teacher fits the student",
        lambda folder: copy_matching_weights(nn.Linear(2, 2), nn.Linear(3, 3)),
        ValueError,
        r"nothing to copy",
        r"the teacher's widths and fewer layers",
    ),
    refused(
        "a table of results is unknown",
        lambda folder: measure.load_results("warped"),
        FileNotFoundError,
        r"no results named 'warped'",
        r"there are .*warped-digits",
        r"kdlearn experiment NAME",
    ),
    refused(
        "a method is compared with one that did not run",
        lambda folder: measure.paired_difference(SCORES, "KD", "scratch"),
        KeyError,
        r"no method 'scratch'",
        r"it has 'KD'",
    ),
]


@pytest.mark.parametrize(
    ("call", "error", "said"), [*DISTILLING, *TRAINING, *CACHING, *MEASURING, *MAKING]
)
def test_it_is_refused_with_a_sentence(call, error, said, tmp_path):
    (tmp_path / "a file").write_text("kept")
    with pytest.raises(error) as caught:
        call(tmp_path)
    assert type(caught.value) is error
    message = " ".join(str(caught.value.args[0]).split())
    for part in said:
        assert re.search(part, message), f"{part!r} is not in: {message}"
    assert (tmp_path / "a file").read_text() == "kept"


def test_cifar_without_its_package_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"CIFAR needs one more package: pip install"):
        data.cifar("cifar10", folder=tmp_path)


# --- Nothing is lost or half-written --------------------------------------------------------------
def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


UNCHANGED = [
    pytest.param(
        lambda folder: small_fit(checkpoints=Checkpoints(folder / "run")),
        ValueError,
        id="a run that begins where another has saved leaves its checkpoints",
    ),
    pytest.param(
        lambda folder: small_fit(
            nn.Linear(4, 3), checkpoints=Checkpoints(folder / "run"), resume=True
        ),
        CheckpointError,
        id="a run that goes on with another model leaves the checkpoints",
    ),
    pytest.param(
        lambda folder: store(folder / "cache", inputs=INPUTS + 1),
        CacheError,
        id="a cache of other data leaves the stored one",
    ),
    pytest.param(
        lambda folder: store(folder / "new", layers={"00": Features()}),
        KeyError,
        id="a cache of a missing layer makes no folder",
    ),
    pytest.param(
        lambda folder: small_fit(epochs=0, checkpoints=Checkpoints(folder / "new")),
        ValueError,
        id="a run of 0 epochs makes no folder",
    ),
]


@pytest.mark.parametrize(("call", "error"), UNCHANGED)
def test_a_refusal_leaves_the_folder_as_it_was(call, error, tmp_path):
    small_fit(checkpoints=Checkpoints(tmp_path / "run"))
    store(tmp_path / "cache")
    known = contents(tmp_path)
    assert any(name.endswith("model.safetensors") for name in known)
    with pytest.raises(error):
        call(tmp_path)
    assert contents(tmp_path) == known


def test_weights_are_not_touched_by_labels_that_are_refused():
    model = net()
    known = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(IndexError):
        small_fit(model, (INPUTS, LABELS + 1))
    assert all(torch.equal(value, known[name]) for name, value in model.state_dict().items())
