import copy
import math
import operator
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FunctionType, ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from kdlearn.core.identity import described, described_parts, digest_of, digest_of_model
from kdlearn.data import RandomShift
from tests.forked import python


def plus(x, y=1):
    return x + y


def closure(number):
    return lambda x: x + number


def counted():
    calls = 0

    def loss(x):
        nonlocal calls
        calls += 1
        return x * calls

    return loss


def written(source, **settings):
    """Return the function ``f`` that source code of a file of your own defines."""
    space = {"__name__": "mine", "torch": torch, "partial": partial, **settings}
    exec(source, space)
    return space["f"]


class Callable:
    def __init__(self, rate):
        self.rate, self._private = rate, object()

    def __call__(self, x):
        return self.rate * x


@dataclass
class Setting:
    loss: object


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (0.5, 0.5, 0.25),
        (partial(plus, y=4), partial(plus, y=4), partial(plus, y=2)),
        (plus, plus, closure),
        (lambda x: x + 1, None, lambda x: x + 2),
        (closure(1), closure(1), closure(2)),
        (counted(), counted(), closure(1)),
        (Callable(1), Callable(1), Callable(2)),
        (Setting(plus), Setting(plus), Setting(closure)),
        (RandomShift(2), RandomShift(2), RandomShift(3)),
        (nn.Linear(2, 3), nn.Linear(2, 3), nn.Linear(3, 3)),
        (torch.ones(2), torch.ones(2), torch.zeros(2)),
        ({"a": plus}, {"a": plus}, {"a": closure}),
        (RandomShift(2).__call__, RandomShift(2).__call__, RandomShift(3).__call__),
    ],
)  # fmt: skip
def test_equal_settings_have_one_name_and_others_another(one, same, other):
    assert described(one) == described(one if same is None else same) != described(other)
    assert " at 0x" not in described(one)


CALLED = """
class f_:
    __slots__ = ("T",)
    def __init__(self, T): self.T = T
    def __call__(self, x): return x / self.T
f = f_({0})
"""
PRIVATE = """
class f_:
    def __init__(self): self._T = {0}
    def __call__(self, x): return x / self._T
f = f_()
"""
CLASS_LEVEL = """
class f_:
    T = {0}
    def __call__(self, x): return x / self.T
f = f_()
"""
METHOD = """
class f_:
    def __call__(self, x): return self.inner(x)
    def inner(self, x): return x / {0}
f = f_()
"""
MODULE = """
class f_(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.T = {0}
    def forward(self, x): return x / self.T
f = f_()
"""
CHANGES = {
    "code": "def f(x): return x / {0}",
    "default": "def f(x, T={0}): return x / T",
    "keyword-only default": "def f(x, *, T={0}): return x / T",
    "closure": "def make(T):\n    return lambda x: x / T\nf = make({0})",
    "closure of a closure": "def make(T):\n    g = lambda x: x / T\n    return lambda x: g(x)\n"
    "f = make({0})",
    "global": "T = {0}\ndef f(x): return x / T",
    "global of an inner function": "T = {0}\ndef f(x): return (lambda: x / T)()",
    "global dict": "T = {{'a': {0}}}\ndef f(x): return x / T['a']",
    "global tensor": "T = torch.full((2000,), float({0}))\ndef f(x): return x / T",
    "global partial": "g = partial(max, {0})\ndef f(x): return g(x)",
    "other function of the file": "def g(x): return x / {0}\ndef f(x): return g(x)",
    "attribute of a function": "def f(x): return x / f.T\nf.T = {0}",
    "partial": "f = partial(max, {0})",
    "keyword of a partial": "f = partial(max, key={0})",
    "slots": CALLED,
    "private attribute": PRIVATE,
    "constant of a class": CLASS_LEVEL,
    "constant of a class that is read": "class C: T = {0}\ndef f(x): return x / C.T",
    "constant of a class inside": "class C:\n    class D: T = {0}\ndef f(x): return x / C.D.T",
    "class": "class f: T = {0}",
    "class that is called": "class C:\n    def g(self): return {0}\ndef f(x): return C().g()",
    "method of a class": "class C:\n    T = {0}\n    @classmethod\n"
    "    def g(cls, x): return x / cls.T\nf = C.g",
    "method": METHOD,
    "attribute of a module": MODULE,
    "method of a module": MODULE + "f = f.forward",
    "layer": "f = torch.nn.Sequential(torch.nn.Dropout({0} / 100))",
    "heads of a layer": "f = torch.nn.TransformerEncoderLayer(8, {0})",
    "type of a parameter": "f = torch.nn.Linear(2, 2, dtype=[torch.half, torch.float][{0} == 4])",
    "buffer that is not saved": MODULE.replace(
        "self.T =", "self.register_buffer('T', torch.tensor(0), persistent=False); self.T +="
    ),
    "array": "import numpy\na = numpy.zeros(3000); a[1500] = {0}\nf = partial(max, a)",
    "set": "f = partial(max, {{'a', 'b', {0}}})",
    "device": "f = partial(max, torch.device('cuda', {0}))",
    "compiled": "f = torch.compile(lambda x: x / {0}, backend='eager')",
    "cached": "import functools\nf = functools.cache(lambda x: x / {0})",
    "script": "f = torch.jit.trace(lambda x: x / {0}, torch.ones(2))",
    "decorated": "@torch.no_grad()\ndef f(x): return x / {0}",
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.torch.jit.trace. is deprecated")
@pytest.mark.parametrize("kind", CHANGES)
def test_each_kind_of_change_gives_another_text(kind):
    first, again, other = (described(written(CHANGES[kind].format(T))) for T in (4, 4, 2))
    assert first == again != other
    assert " at 0x" not in first


def test_a_constant_of_another_file_of_yours_counts_and_of_a_package_not(monkeypatch):
    ours = ModuleType("ours")
    monkeypatch.setitem(sys.modules, "ours", ours)
    ours.C = type("C", (), {"__module__": "ours"})
    function = written("import ours, math\ndef f(x): return x / ours.T + ours.C.T + math.pi")
    texts = set()
    for ours.T in (4, 2):
        for ours.C.T in (4, 2):
            texts.add(described(function))
    monkeypatch.setattr(math, "pi", 3)
    texts.add(described(function))
    assert len(texts) == 4


def test_a_constant_of_a_class_that_is_not_read_is_no_setting():
    source = "class C:\n    T = 4\n    resume = {0}\ndef f(x): return x / C.T"
    assert described(written(source.format(False))) == described(written(source.format(True)))


def test_what_a_function_counts_itself_and_what_is_random_is_no_setting():
    source = "calls = 0\ndef f(x):\n    global calls\n    calls += 1\n    return x"
    function = written(source)
    before = described(function)
    function(1)
    assert described(function) == before
    state = [
        random.Random(0),
        np.random.default_rng(0),
        torch.Generator(),
        object(),
    ]
    before = described(state)
    state[0].gauss(0, 1), state[1].random(), torch.rand((), generator=state[2])
    assert described(state) == before


NOTING = {
    "object": "class C:\n    def __init__(self): self.T, self.seen = {0}, []\nf = C()",
    "object in a list": "class C:\n    def __init__(self): self.T, self.seen = {0}, []\n"
    "f_ = C()\nf = [f_]",
    "method": "class C:\n    def __init__(self): self.T, self.seen = {0}, []\n"
    "    def g(self): pass\nf_ = C()\nf = f_.g",
    "class": "class f:\n    T, seen = {0}, []",
    "module": "class C(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.T, self.seen = {0}, []\nf_ = C()\nf = torch.nn.Sequential(f_)",
    "layer": "class C(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
    "        self.drop, self.seen = torch.nn.Dropout({0} / 10), []\nf = C()",
    "closure": "def make(T, seen):\n    return lambda x: seen.append(x / T)\nf = make({0}, [])",
    "code": "def make(seen):\n    return lambda x: seen.append(x / {0})\nf = make([])",
    "global": "seen, T = [], {0}\ndef f(x): return seen.append(x / T)",
    "partial": "seen = []\nf = partial(max, seen, {0})",
}


@pytest.mark.parametrize("kind", NOTING)
def test_a_part_that_changes_leaves_the_others(kind):
    def seen_of(f):
        if isinstance(f, partial):
            return f.args[0]
        if isinstance(f, FunctionType):
            names = dict(zip(f.__code__.co_freevars, f.__closure__ or (), strict=True))
            return names["seen"].cell_contents if names else f.__globals__["seen"]
        inner = f[0] if isinstance(f, list | nn.Sequential) else getattr(f, "__self__", f)
        return inner.seen

    first, other = written(NOTING[kind].format(4)), written(NOTING[kind].format(2))
    before = described_parts(first)
    seen_of(first).append(1.0)
    after = described_parts(first)
    kept = {place for place in after if before.get(place) == after[place]}
    assert 0 < len(kept) < len(after)
    assert any(described_parts(other)[place] != after[place] for place in kept)


class Colliding(Callable):
    def __hash__(self):
        return 0  # so that a set has the order in which it was filled


def test_the_parts_do_not_depend_on_the_order_of_sets():
    one, other = Colliding(1), Colliding(2)
    for describe in (described, described_parts):
        assert describe([{one, other}]) == describe([{other, one}])


def test_a_name_that_is_an_attribute_alone_is_no_global():
    source = "def f(batch): return batch.labels"
    assert described(written(source, labels=1)) == described(written(source, labels=2))


def test_an_object_may_hold_itself():
    held = Callable(1)
    held.me = [held]
    other = Callable(1)
    other.me = [other]
    assert described(held) == described(other)


SCRIPT = """
import logging, random, numpy, torch, transformers
from functools import partial
from kdlearn import losses
from kdlearn.core.identity import described, described_parts
from kdlearn.data import FixedCopies, RandomShift
from kdlearn.models import TinyEncoder
from tests.core.test_identity import CHANGES, written
def kind(x, kind="kl"):
    return x if kind in {"kl", "mse", "reverse", "js"} else -x
class Objects:
    def __init__(self):
        self.kinds, self.me = {"a", "b", "c", "d"}, self
        self.order = {name: 1 for name in self.kinds}
        self.generators = [torch.Generator(), numpy.random.default_rng(0), random.Random(0)]
        self.log, self.lock = logging.getLogger("a"), __import__("threading").Lock()
    def __call__(self, x):
        return x
for source in CHANGES.values():
    print(described(written(source.format(4))))
    print(described_parts(written(source.format(4))))
for name in losses.__all__:
    print(described(getattr(losses, name)))
small = dict(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=9)
print(described(transformers.BertForSequenceClassification(transformers.BertConfig(**small))))
for describe in (described, described_parts):
    print(describe([kind, Objects(), FixedCopies(RandomShift(1), (0,)), TinyEncoder(5, 3)]))
"""


def test_texts_are_equal_in_processes_that_order_sets_differently(tmp_path):
    root, log = Path(__file__).parents[2], tmp_path / "log"
    process = python(["-c", SCRIPT], log, folder=root)  # with the order of this one
    other = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert process.wait() == 0, log.read_text()
    assert log.read_text().splitlines() == other and len(other) > len(CHANGES)


def test_a_digest_sees_names_types_shapes_and_every_number():
    tensor = torch.arange(6.0)
    changed = tensor.clone()
    changed[5] += 1e-6
    others = [
        changed, tensor.view(2, 3), tensor.double(), {"a": tensor}, {"b": tensor}, (tensor, tensor)
    ]  # fmt: skip
    digests = [digest_of(value) for value in (tensor, *others)]
    assert len(set(digests)) == len(digests)
    assert digest_of(tensor.clone()) == digests[0]
    assert digest_of(tensor.view(2, 3).T.contiguous().T) == digest_of(tensor.view(2, 3))


def test_a_digest_of_a_model_sees_layers_between_the_weights():
    torch.manual_seed(0)
    linear = nn.Linear(2, 2)
    kinds = [nn.ReLU(), nn.Sigmoid(), nn.Dropout(0.1), nn.Dropout(0.2)]
    digests = {digest_of_model(nn.Sequential(linear, kind)) for kind in kinds}
    assert len(digests) == 4


@pytest.mark.parametrize(
    "values",
    [
        (torch.Tensor.mean, torch.Tensor.sum),
        (torch.Tensor.__add__, torch.Tensor.__mul__),
        (operator.methodcaller("mean", 1), operator.methodcaller("mean", 2)),
        (operator.itemgetter(0), operator.itemgetter(1)),
        (operator.attrgetter("a"), operator.attrgetter("b")),
        (torch.distributions.Beta(0.2, 0.2), torch.distributions.Beta(5.0, 5.0)),
        (torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.0, 2.0)),
    ],
)
def test_what_holds_its_settings_out_of_sight_is_told_apart(values):
    one, other = values
    assert described(one) == described(copy.deepcopy(one)) != described(other)
