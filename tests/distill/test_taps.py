from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn

from kdlearn.distill.taps import Taps


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.skip = nn.Identity()

    def forward(self, x):
        kept = self.skip(x)
        out = self.layer(x)
        out += 1
        kept.mul_(0)
        return out


Pair = namedtuple("Pair", "first second")


class Nested(nn.Module):
    def forward(self, x):
        return {"states": (x + 1, [x + 2]), "pair": Pair(x + 3, None), "count": 7}


class UsesNested(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Nested()

    def forward(self, x):
        out = self.inner(x)
        for part in (out["states"][0], out["states"][1][0], out["pair"].first):
            part.zero_()
        return x


def hooks_of(model: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def network(inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(1, 4, 3),
            relu=nn.ReLU(inplace=inplace),
            flat=nn.Flatten(),
            out=nn.Linear(16, 3),
        )
    )


def test_records_the_output_of_a_module_by_path():
    model, x = network(), torch.randn(2, 1, 4, 4)
    with Taps(model, ["conv", "out"]) as taps:
        output = model(x)
    assert torch.equal(taps["conv"], model.conv(x))
    assert torch.equal(taps["out"], output)
    assert list(taps) == ["conv", "out"]


def test_an_in_place_successor_does_not_change_what_was_recorded():
    model, x = network(inplace=True), torch.randn(2, 1, 4, 4)
    with Taps(model, ["conv"]) as taps:
        model(x)
    assert (taps["conv"] < 0).any()


def test_the_model_computes_the_same_with_and_without_taps():
    model, x = network(), torch.randn(2, 1, 4, 4)
    plain = model(x)
    with Taps(model, ["conv", "relu", "flat"]):
        assert torch.equal(model(x), plain)


def test_in_place_arithmetic_of_the_caller_is_kept_out_too():
    model, x = Residual(), torch.ones(2, 3)
    with Taps(model, ["layer", "skip"]) as taps:
        model(x)
    assert torch.equal(taps["layer"], model.layer(torch.ones(2, 3)))
    assert torch.equal(taps["skip"], torch.ones(2, 3))


def test_gradients_pass_through_a_tapped_layer_as_if_it_were_not_tapped():
    model, x = network(), torch.randn(2, 1, 4, 4)
    model(x).square().sum().backward()
    expected = model.conv.weight.grad.clone()
    model.zero_grad()
    with Taps(model, ["conv"]) as taps:
        output = model(x)
    output.square().sum().backward(retain_graph=True)
    assert torch.allclose(model.conv.weight.grad, expected)
    assert torch.autograd.grad(output.sum(), taps["conv"])[0].abs().sum() > 0


def test_a_loss_on_a_tap_reaches_the_layers_below():
    model = network()
    with Taps(model, ["relu"]) as taps:
        model(torch.randn(2, 1, 4, 4))
    taps["relu"].sum().backward()
    assert model.conv.weight.grad.abs().sum() > 0
    assert model.out.weight.grad is None


def test_nested_tuples_dicts_and_lists_keep_their_form_and_can_be_picked_from():
    x = torch.ones(2)
    names = ["inner", "inner[states][0]", "inner[states][1][0]", "inner[pair][0]"]
    with Taps(model := UsesNested(), names) as taps:
        model(x)
    whole = taps["inner"]
    assert torch.equal(whole["states"][1][0], x + 2)
    assert isinstance(whole["pair"], Pair) and whole["pair"].second is None and whole["count"] == 7
    assert [taps[name][0].item() for name in names[1:]] == [2, 3, 4]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("inner[nothing]", r"no part \[nothing\], it has states, pair, count"),
        ("inner[states][5]", r"no part \[5\], it has 0, 1"),
        ("inner[count][0]", r"picks inside a int, which has no parts"),
    ],
)
def test_a_pick_that_is_not_there_says_what_is(name, says):
    with Taps(model := UsesNested(), [name]) as taps:
        model(torch.ones(2))
    with pytest.raises(KeyError, match=says):
        taps[name]


def test_an_unknown_name_lists_the_close_ones():
    with pytest.raises(KeyError, match="no module 'con': close are 'conv'"):
        Taps(network(), ["con"])
    with pytest.raises(KeyError, match="the model has no submodule"):
        Taps(nn.Linear(2, 2), ["conv"])


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("conv", r"pass a list, \['conv'\]"),
        ([], "at least one module path"),
        (["a[b"], "not a module path"),
    ],
)
def test_malformed_names_are_refused(names, says):
    with pytest.raises(ValueError, match=says):
        Taps(network(), names)


def test_hooks_are_gone_after_the_block_and_after_an_exception():
    model = network()
    with Taps(model, ["conv"]):
        assert hooks_of(model) == 2
    assert hooks_of(model) == 0
    with pytest.raises(RuntimeError), Taps(model, ["conv"]):
        model(torch.ones(3))
    assert hooks_of(model) == 0


def test_each_pass_forgets_the_one_before():
    class Sometimes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)

        def forward(self, x, both):
            return self.b(self.a(x)) if both else self.a(x)

    model = Sometimes()
    with Taps(model, ["b"]) as taps:
        model(torch.ones(1), True)
        assert taps["b"].shape == (1,)
        model(torch.ones(1), False)
        with pytest.raises(KeyError, match="nothing recorded for 'b'"):
            taps["b"]


def test_reading_a_name_that_is_not_tapped_says_which_are():
    with pytest.raises(KeyError, match="'out' is not tapped: tapped are 'conv'"):
        Taps(network(), ["conv"])["out"]


def test_taps_open_once_at_a_time_and_can_be_opened_again():
    taps, model = Taps(model := network(), ["conv"]), model
    with taps, pytest.raises(RuntimeError, match="open already"), taps:
        pass
    with taps:
        model(torch.ones(1, 1, 4, 4))
    assert taps["conv"].shape == (1, 4, 2, 2)


def test_works_under_autocast():
    model, x = network(), torch.randn(2, 1, 4, 4)
    with torch.autocast("cpu", torch.bfloat16), Taps(model, ["conv"]) as taps:
        model(x)
    assert taps["conv"].dtype == torch.bfloat16
    assert torch.allclose(taps["conv"].float(), model.conv(x), atol=0.05)


def test_works_with_a_compiled_model_and_reads_each_pass_anew():
    model = network()
    compiled = torch.compile(model, backend="aot_eager")
    taps = Taps(compiled, ["conv"])
    for seed in (1, 2):
        x = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(seed))
        with taps:
            output = compiled(x)
        assert torch.allclose(taps["conv"], model.conv(x), atol=1e-6)
        assert (taps["conv"] < 0).any()
        assert torch.allclose(output, model(x), atol=1e-6)
    taps["conv"].sum().backward()
    assert model.conv.weight.grad.abs().sum() > 0


def test_a_class_in_place_of_a_model_is_told():
    with pytest.raises(TypeError, match="expected a module, such as SmallCNN"):
        Taps(nn.Linear, ["0"])


def test_a_name_that_is_not_tapped_or_did_not_run_is_told():
    taps = Taps(network(), ["conv"])
    with pytest.raises(KeyError, match="'relu' is not tapped: tapped are 'conv'"):
        taps["relu"]
    with pytest.raises(KeyError, match="nothing recorded for 'conv'"):
        taps["conv"]


def test_an_output_that_is_none_says_why():
    class Lazy(nn.Module):
        def forward(self, x):
            return x, None

    model = nn.Sequential(Lazy())
    with Taps(model, ["0[1]"]) as taps:
        model(torch.ones(1))
    with pytest.raises(KeyError, match=r"is None: the module did not compute it.*eager"):
        taps["0[1]"]


class Shortcut(nn.Module):
    """Keeps its input by a module that returns it, and lets a later one change it in place."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.same, self.change, self.how = nn.Identity(), nn.ReLU(inplace=True), how

    def forward(self, x):
        hidden = x - 1
        if self.how == "keyword":
            kept = self.same(input=hidden)
        elif self.how == "tuple":
            (kept,) = self.same((hidden,))
        else:
            kept = self.same(hidden)
        return self.change(hidden) + kept


@pytest.mark.parametrize("how", ["first", "keyword", "tuple"])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_taps_change_nothing_of_what_a_model_computes(how, mode):
    model, x = Shortcut(how), torch.randn(4, 3)
    with mode():
        expected = model(x)
        with Taps(model, ["same"]) as taps:
            found = model(x)
        recorded = taps["same"][0] if how == "tuple" else taps["same"]
        assert torch.equal(found, expected)
        assert torch.equal(recorded, x - 1)


def test_a_layer_that_hides_where_its_numbers_lie_is_recorded_as_it_was():
    class Hidden(nn.Module):
        def forward(self, x):
            return x.data

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Hidden()

        def forward(self, x):
            hidden = 2 * x
            return self.inner(hidden).add_(1), hidden

    model, x = Model(), torch.randn(4, 3)
    with Taps(model, ["inner"]) as taps:
        model(x)
    assert torch.equal(taps["inner"], 2 * x)


def test_tensors_without_a_place_in_memory_are_recorded_too():
    model, x = nn.Sequential(nn.Linear(3, 2, bias=False)), torch.randn(4, 3)
    with Taps(model, ["0"]) as taps:
        model(x.to_sparse())
        assert torch.allclose(taps["0"], x @ model[0].weight.T)
        slopes = torch.func.grad(lambda y: model(y).sum())(x)
    assert torch.allclose(slopes, model[0].weight.sum(0).expand(4, 3))
