"""Costs against closed forms; time by lower bounds alone."""

import json
import struct
import time
import warnings

import pytest
import torch
from torch import Tensor, nn

from kdlearn.measure.cost import Profile, profile

FLOAT = 4


def costs(model, example, **options) -> Profile:
    return profile(model, example, runs=20, **options)


def test_a_linear_layer_multiplies_and_adds_once_for_each_weight():
    assert costs(nn.Linear(30, 7), torch.zeros(1, 30)).flops == 2 * 30 * 7


def test_a_convolution_does_so_at_each_position():
    model = nn.Conv2d(3, 8, 5, padding=2, stride=2)
    assert costs(model, torch.zeros(2, 3, 16, 16)).flops == 2 * (8 * 8) * 8 * (3 * 5 * 5)


def test_flops_are_of_one_sample_whatever_the_example():
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))
    one, many = (costs(model, torch.zeros(rows, 5)).flops for rows in (1, 9))
    assert one == many == 2 * (5 * 4 + 4 * 3)


@pytest.mark.parametrize(
    ("call", "flops"),
    [
        (lambda h: h @ torch.ones(6), 2 * 4 * 6),
        (lambda h: torch.addmv(torch.ones(4), h[0], torch.ones(6)), 2 * 4 * 6),
        (lambda h: h[0, 0] @ torch.ones(6), 2 * 6),
        (lambda h: torch.vdot(h[0, 0], torch.ones(6)), 2 * 6),
        (lambda h: torch.einsum("bij,j->bi", h, torch.ones(6)), 2 * 4 * 6),
    ],
)
def test_a_product_with_a_vector_is_counted(call, flops):
    assert costs(call, torch.ones(1, 4, 6)).flops == flops


@pytest.mark.parametrize(
    "product",
    [
        lambda h: nn.Bilinear(6, 6, 3)(h, h),
        lambda h: torch.addbmm(torch.ones(4, 4), h, h.mT),
        lambda h: torch.ones(4, 4).addmm_(h[0], h[0].T),
        lambda h: torch.ones(4).addmv_(h[0], torch.ones(6)),
    ],
)
def test_a_product_that_the_counter_does_not_know_is_unknown_and_not_free(product):
    assert costs(lambda h: product(h @ torch.ones(6, 6)), torch.ones(1, 4, 6)).flops is None


def test_what_only_sounds_like_a_product_is_no_product():
    def call(images):
        return nn.functional.interpolate(images, scale_factor=2, mode="bilinear").lgamma() @ eye

    eye = torch.eye(8)
    assert costs(call, torch.ones(1, 1, 4, 4)).flops == 2 * 8 * 8 * 8


def test_fused_attention_is_counted_as_what_it_computes():
    length, width, hidden = 5, 8, 16
    layer = nn.TransformerEncoderLayer(width, 2, hidden, batch_first=True)
    projections = 4 * length * width * width
    scores_and_mixing = 2 * length * length * width
    feed_forward = 2 * length * width * hidden
    expected = 2 * (projections + scores_and_mixing + feed_forward)
    assert costs(layer, torch.zeros(1, length, width)).flops == expected


def test_a_recurrent_layer_is_counted_step_by_step():
    expected = 2 * 5 * 4 * (3 * 6 + 6 * 6)
    assert costs(nn.LSTM(3, 6, batch_first=True), torch.zeros(1, 5, 3)).flops == expected


def test_counting_puts_the_fast_kernels_back():
    def state():
        return torch.backends.mha.get_fastpath_enabled(), torch.backends.mkldnn.enabled

    was = state()
    for fast in (True, False):
        torch.backends.mha.set_fastpath_enabled(fast)
        before = state()
        costs(nn.Linear(2, 2), torch.zeros(1, 2))
        with pytest.raises(RuntimeError):
            costs(nn.Linear(2, 2), torch.zeros(1, 3))
        assert state() == before
    torch.backends.mha.set_fastpath_enabled(was[0])


def test_the_file_is_four_bytes_a_weight_and_a_header():
    model = nn.Sequential(nn.Linear(30, 7), nn.BatchNorm1d(7))
    floats = 30 * 7 + 7 + 4 * 7
    batches_seen = 8
    header = {
        name: {"dtype": "I64" if value.dtype == torch.int64 else "F32", "shape": list(value.shape)}
        for name, value in model.state_dict().items()
    }
    written = costs(model, torch.zeros(1, 30)).disk
    assert floats * FLOAT + batches_seen + len(json.dumps(header)) < written
    assert written < floats * FLOAT + batches_seen + 2 * len(json.dumps(header)) + 64


def test_the_size_is_that_of_the_file_which_safetensors_writes(tmp_path):
    from safetensors.torch import save_file

    model = nn.Linear(30, 7)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    assert len(content) == 8 + struct.unpack("<Q", content[:8])[0] + FLOAT * (30 * 7 + 7)
    assert costs(model, torch.zeros(1, 30)).disk == len(content)


def test_channels_may_lie_last():
    model, images = nn.Conv2d(3, 8, 5), torch.zeros(1, 3, 16, 16)
    before = costs(model, images).disk
    assert costs(model.to(memory_format=torch.channels_last), images).disk == before


def test_tied_weights_are_counted_and_stored_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(100, 100, bias=False)
            self.second = nn.Linear(100, 100, bias=False)
            self.second.weight = self.first.weight

        def forward(self, values: Tensor) -> Tensor:
            return self.second(self.first(values))

    got = costs(Tied(), torch.zeros(1, 100))
    assert got.parameters == 100 * 100
    assert 100 * 100 * FLOAT < got.disk < 1.1 * 100 * 100 * FLOAT


def test_memory_is_the_peak_and_not_the_sum_of_the_activations():
    # Three hidden layers of 1,000: two at a time, the input of a layer and its output.
    model = nn.Sequential(nn.Linear(4, 1000), nn.Tanh(), nn.Linear(1000, 1000), nn.Linear(1000, 2))
    got = costs(model, torch.zeros(1, 4), batch_sizes=(1, 8)).batches
    assert got[1].memory == 2 * 1000 * FLOAT
    assert got[8].memory == 8 * 2 * 1000 * FLOAT


def test_a_change_in_place_and_a_view_take_no_memory():
    model = nn.Sequential(nn.Linear(4, 1000), nn.ReLU(inplace=True), nn.Unflatten(1, (10, 100)))
    assert costs(model, torch.zeros(1, 4), batch_sizes=(1,)).batches[1].memory == 1000 * FLOAT


def test_memory_counts_what_a_call_makes_of_its_own_in_its_precision():
    made = costs(lambda images: torch.zeros(1000, dtype=torch.float64), torch.zeros(1, 4))
    assert made.batches[1].memory == 1000 * 2 * FLOAT


def test_time_is_at_least_the_time_that_the_model_sleeps():
    def sleeping(images: Tensor) -> Tensor:
        time.sleep(0.002 * len(images))
        return images

    got = costs(sleeping, torch.zeros(1, 1), batch_sizes=(1, 3)).batches
    assert got[1].p50 >= 2
    assert got[3].p50 >= 6


def test_the_clock_runs_while_the_model_does_and_not_before_it_is_warm(monkeypatch):
    now, calls = [100.0], []

    def model(images: Tensor) -> Tensor:
        calls.append(images)
        timed = len(calls) - 1 - 10  # one call counts operations, ten warm up
        now[0] += 50.0 if timed <= 0 else timed / 1000
        return images

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    got = profile(model, torch.zeros(1, 1), batch_sizes=(1,))
    assert got.runs == 100
    assert len(calls) == 1 + 10 + 100 + 1  # and one call weighs the memory
    # Calls of 1 to 100 ms: percentiles lie between neighbors.
    assert got.batches[1].p50 == pytest.approx(50.5)
    assert got.batches[1].p95 == pytest.approx(95.05)


def test_few_slow_calls_show_in_p95_and_not_in_p50():
    calls = []

    def hiccup(images: Tensor) -> Tensor:
        calls.append(images)
        time.sleep(0.05 if len(calls) % 10 == 0 else 0)
        return images

    got = costs(hiccup, torch.zeros(1, 1), batch_sizes=(1,)).batches[1]
    assert got.p50 <= got.p95
    assert got.p95 >= 50


def test_batches_of_any_size_are_filled_with_the_rows_of_the_example():
    seen = []

    def noting(images: Tensor) -> Tensor:
        seen.append(images.flatten().tolist())
        return images

    costs(noting, torch.tensor([[1.0], [2.0]]), batch_sizes=(1, 5))
    assert {tuple(rows) for rows in seen} == {(1.0,), (1.0, 2.0, 1.0, 2.0, 1.0)}


def test_named_inputs_are_keyword_arguments():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, values: Tensor, scale: Tensor) -> dict[str, Tensor]:
            return {"logits": self.layer(values * scale)}

    assert costs(Named(), {"values": torch.ones(2, 3), "scale": torch.ones(2, 1)}).flops == 12


def test_the_model_is_measured_in_evaluation_mode_and_left_in_its_own():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.frozen = nn.BatchNorm1d(2).eval()
            self.dropout = nn.Dropout()
            self.modes = set()

        def forward(self, values: Tensor) -> Tensor:
            self.modes.add((self.training, self.dropout.training, torch.is_grad_enabled()))
            return self.dropout(self.frozen(values))

    model = Mixed()
    costs(model, torch.ones(4, 2))
    assert model.modes == {(False, False, False)}
    assert model.training and model.dropout.training and not model.frozen.training


def test_packed_int8_weights_are_smaller_and_their_operations_unknown_not_zero():
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch, and still there
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.Linear})
    before, after = (costs(net, torch.zeros(1, 300)) for net in (model, quantized))
    assert after.parameters is None and after.flops is None
    assert 300 * 310 < after.disk < before.disk / 3
    assert after.batches[1].p50 > 0


def test_what_torch_does_not_run_has_time_and_the_size_of_its_file(tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(bytes(1234))
    got = costs(lambda images: images.numpy() + 1, torch.zeros(1, 3), file=file)
    assert (got.parameters, got.flops, got.batches[64].memory) == (None, None, None)
    assert got.disk == 1234
    assert got.batches[1].p50 > 0
    assert str(got).count(" -") == 4


def test_it_prints_as_a_table():
    lines = str(costs(nn.Linear(300, 7), torch.zeros(1, 300))).splitlines()
    assert lines[0].split() == ["parameters", "2,107"]
    assert lines[2].split()[:2] == ["FLOPs", "4,200"]
    assert lines[3].split() == ["runs", "20", "of", "each", "batch"]
    assert [line.split()[0] for line in lines[4:]] == ["batch", "1", "64"]
    assert lines[6].split()[-1] == "1.8"  # 64 x 7 floats, in kB
    large = costs(nn.Linear(3, 250_000), torch.zeros(1, 3), batch_sizes=(1,))
    assert str(large).splitlines()[5].split()[-1] == "1,000.0"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": "model.onnx"}, TypeError, "a str cannot be called: give a module, or"),
        ({"example": torch.zeros(0, 3)}, ValueError, "no samples: give at least one"),
        ({"batch_sizes": (1, 0)}, ValueError, "a batch size is 0: expected a whole number >= 1"),
        ({"batch_sizes": ()}, ValueError, "batch_sizes are empty"),
        ({"runs": 5}, ValueError, "runs is 5: expected a whole number >= 20"),
        ({"example": torch.zeros(1, 3, device="meta")}, ValueError, "on meta: only the CPU and"),
        ({"file": "no/such.onnx"}, FileNotFoundError, "such.onnx"),
    ],
)
def test_bad_input_says_what_to_do(change, error, message):
    with pytest.raises(error, match=message):
        profile(**{"model": nn.Linear(3, 2), "example": torch.zeros(1, 3), **change})


def test_another_device_cannot_be_timed():
    with pytest.raises(ValueError, match="the example is on meta: only the CPU and CUDA"):
        profile(nn.Linear(2, 2), torch.ones(1, 2, device="meta"))
