import copy
import errno
import os
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader, Dataset, SubsetRandomSampler, TensorDataset

from kdlearn import losses
from kdlearn.core.files import read_json, write_json
from kdlearn.core.inputs import tensors_in
from kdlearn.data import Batch, FixedCopies, RandomShift
from kdlearn.distill import Distiller, label_term, layer_term, logit_term, sparse_term
from kdlearn.store import (
    AttentionMap,
    CachedTeacher,
    CacheError,
    Sampled,
    TopK,
    cache_teacher,
    open_cache,
)
from kdlearn.store import cache as module
from kdlearn.training.fit import fit


def network(seed: int, width: int = 6, stride: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, stride, 1),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.Flatten(),
        nn.LazyLinear(5),
    )


def images(count: int = 22) -> Tensor:
    return torch.rand(count, 1, 8, 8, generator=Generator().manual_seed(0))


def labels(count: int = 22) -> Tensor:
    return torch.arange(count) % 5


def teacher() -> nn.Sequential:
    made = network(1, width=9)
    made(images(1))
    return made


def terms(p: float = 2, layers: tuple[str, ...] = ("0", "2")) -> list:
    attention = losses.attention_transfer_loss
    return [
        label_term(0.1),
        logit_term("soft", losses.soft_target_loss, 0.9),
        layer_term("attention", attention, layers, 20.0, keep=AttentionMap(p=p)),
    ]


def ask(source, inputs: Tensor, rows: Tensor):
    return source.outputs(Batch(inputs, rows=rows))


def student() -> nn.Sequential:
    made = network(2)
    made(images(1))
    return made


def stored(folder: Path, **options) -> CachedTeacher:
    settings = {"terms": terms(), "shard_rows": 8, "batch_size": 4, "progress": False} | options
    return cache_teacher(teacher(), images(), folder, **settings)


def test_losses_cannot_tell_a_stored_teacher_from_a_live_one(tmp_path):
    rows = torch.tensor([21, 3, 8, 7, 3])
    live = Distiller(student(), teacher(), terms())(images()[rows], labels()[rows])
    distiller = Distiller(student(), stored(tmp_path), terms())
    kept = distiller(images()[rows], labels()[rows], rows)
    assert list(live.parts) == list(kept.parts)
    for name, part in live.parts.items():
        torch.testing.assert_close(kept.parts[name], part, rtol=1e-5, atol=1e-7)
    gradients = [torch.autograd.grad(x.total, x.logits)[0] for x in (live, kept)]
    torch.testing.assert_close(*gradients)


def test_a_run_from_the_store_is_the_run_with_the_teacher(tmp_path):
    copies = FixedCopies(RandomShift(2), seeds=(3, 5))
    settings = {"epochs": 3, "batch_size": 6, "progress": False, "augment": copies}
    live = Distiller(student(), teacher(), terms())
    expected = fit(live, (images(), labels()), **settings)
    kept = Distiller(student(), stored(tmp_path, copies=copies), terms())
    history = fit(kept, (images(), labels()), **settings)
    for ours, theirs in zip(history.epochs, expected.epochs, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
    for name, value in live.state_dict().items():
        torch.testing.assert_close(kept.state_dict()[name], value, rtol=1e-3, atol=1e-4)


def test_each_epoch_sees_the_next_copy():
    seen = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(64, 5)

        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(inputs.clone())
            return self.layer(inputs.flatten(1))

    copies = FixedCopies(RandomShift(2), seeds=(3, 5))
    fit(Watching(), (images(), labels()), epochs=3, batch_size=22, augment=copies, progress=False)
    shown = [view for view in seen if len(view) == 22]  # two samples are tried before
    for view, number in zip(shown, (0, 1, 0), strict=True):
        expected = copies.copy(images(), number)
        assert sorted(map(str, view)) == sorted(map(str, expected))
    assert not torch.equal(copies.copy(images(), 0), copies.copy(images(), 1))


def test_a_finished_cache_opens_with_the_answers_of_a_few_samples(tmp_path):
    made = stored(tmp_path)
    seen = []

    class Counting(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(len(inputs))
            return super().forward(inputs)

    counting = Counting(*teacher())
    counting.__class__.__qualname__ = "Sequential"
    opened = open_cache(tmp_path, teacher=counting, inputs=images(), terms=terms())
    rows = torch.arange(22)
    ours, theirs = (ask(source, images(), rows) for source in (opened, made))
    assert torch.equal(ours.logits, theirs.logits)
    assert sum(seen) == 4


def test_two_kinds_of_one_layer_are_stored_apart(tmp_path):
    pair = [
        layer_term("relations", losses.similarity_preserving_loss, ["2"]),
        layer_term("two", losses.attention_transfer_loss, ["2"], keep=AttentionMap()),
        layer_term("four", power_four, ["2"], keep=AttentionMap(p=4)),
    ]
    rows = torch.arange(9)
    live = Distiller(student(), teacher(), pair)(images()[:9])
    kept = Distiller(student(), stored(tmp_path, terms=pair), pair)(images()[:9], None, rows)
    for name, part in live.parts.items():
        torch.testing.assert_close(kept.parts[name], part, rtol=1e-5, atol=1e-9)
    assert kept.parts["two"] != kept.parts["four"]


def power_four(student: Tensor, teacher: Tensor) -> Tensor:
    return losses.attention_transfer_loss(student, teacher, p=4)


def test_data_that_is_loaded_by_row_can_be_stored(tmp_path):
    pairs = TensorDataset(images(), labels())
    loaded = cache_teacher(teacher(), pairs, tmp_path / "a", shard_rows=8, progress=False)
    held = cache_teacher(teacher(), images(), tmp_path / "b", shard_rows=8, progress=False)
    rows = torch.tensor([3, 21, 8])
    assert torch.equal(*(ask(c, images()[rows], rows).logits for c in (loaded, held)))
    model = Distiller(student(), loaded, terms()[:2])
    loader = DataLoader(pairs, batch_size=4, shuffle=True)
    by_loader = fit(model, loader, epochs=1, progress=False).epochs[0]["parts"]["soft"]
    assert by_loader > 0
    with pytest.raises(ValueError, match="inputs are a stream"):
        cache_teacher(teacher(), [(images(), labels())], tmp_path / "c", progress=False)


def changed(model: nn.Module) -> nn.Module:
    model[0].weight.data[0, 0, 0, 0] += 1e-6
    return model


def other_activation() -> nn.Module:
    made = teacher()
    made[1] = nn.Sigmoid()
    return made


def other_padding() -> nn.Module:
    made = teacher()
    made[2].padding_mode = "reflect"
    return made


def other_forward() -> nn.Module:
    class Doubled(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            return 2 * super().forward(inputs)

    Doubled.__qualname__ = "Sequential"
    return Doubled(*teacher())


def other_images() -> Tensor:
    made = images()
    made[3, 0, 1, 1] += 1e-3
    return made


@pytest.mark.parametrize(
    ("difference", "name"),
    [
        ({"teacher": changed(teacher())}, "teacher"),
        ({"teacher": other_activation()}, "teacher"),
        ({"teacher": other_padding()}, "teacher"),
        ({"inputs": other_images()}, "data"),
        ({"teacher": other_forward()}, "teacher"),
        ({"terms": terms(layers=("0",))}, "terms"),
        ({"terms": terms(p=4)}, "terms"),
        ({"terms": None}, "terms"),
        ({"dtype": torch.float16}, "dtype"),
        ({"copies": FixedCopies(RandomShift(1), (0,))}, "augmentation"),
    ],
)
def test_a_cache_of_something_else_is_refused_by_name(tmp_path, difference, name):
    stored(tmp_path)
    settings = {"teacher": teacher(), "inputs": images(), "terms": terms()} | difference
    with pytest.raises(CacheError, match=f"with another {name}: "):
        open_cache(tmp_path, **settings)
    options = {key: value for key, value in settings.items() if key not in ("teacher", "inputs")}
    with pytest.raises(CacheError, match=f"with another {name}: "):
        cache_teacher(
            settings["teacher"],
            settings["inputs"],
            tmp_path,
            shard_rows=8,
            progress=False,
            **options,
        )


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda f: (f / "000001.safetensors").write_bytes(b"x"), "000001.* is missing or damaged"),
        (lambda f: flip(f / "000001.safetensors"), "000001.safetensors is missing or damaged"),
        (lambda f: (f / "000000.safetensors").unlink(), "000000.* makes this file anew"),
        (lambda f: (f / "index.json").write_text("{"), "cannot be read"),
        (lambda f: write_json(f / "index.json", {"format": "x"}), "is not a"),
        (lambda f: (f / "index.json").unlink(), "has no teacher cache"),
    ],
)
def test_damage_is_told(tmp_path, damage, said):
    stored(tmp_path)
    damage(tmp_path)
    with pytest.raises(CacheError, match=said):
        open_cache(tmp_path, teacher=teacher(), inputs=images(), terms=terms())


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(CacheError, match="no teacher cache, such as thesis.txt"):
        stored(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_any_flipped_bit_of_the_index_is_told(tmp_path):
    stored(tmp_path)
    path = tmp_path / "index.json"
    whole = path.read_bytes()
    for place in range(len(whole) - 1):  # the last byte is the end of a line
        content = bytearray(whole)
        content[place] ^= 1 << (place % 7)
        path.write_bytes(content)
        with pytest.raises(CacheError, match="cannot be read"):
            module._read_index(tmp_path)


def test_only_what_is_damaged_is_made_again(tmp_path):
    stored(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    flip(tmp_path / "000001.safetensors")
    seen = []
    watched = teacher()
    watched.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    stored_again = cache_teacher(
        watched, images(), tmp_path, terms(), shard_rows=8, batch_size=4, progress=False
    )
    assert len(stored_again) == 22 and sum(seen) == 4 + 8  # the answers that identify, and a shard
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_unfinished_cache_says_how_to_go_on(tmp_path):
    stored(tmp_path)
    index = read_json(tmp_path / "index.json")
    del index["shards"]["000002.safetensors"]
    write_json(tmp_path / "index.json", index)
    with pytest.raises(CacheError, match="not finished"):
        open_cache(tmp_path, teacher=teacher(), inputs=images(), terms=terms())
    with pytest.raises(CacheError, match="shard_rows=8: pass the same"):
        stored(tmp_path, shard_rows=4)
    assert len(stored(tmp_path)) == 22


@pytest.mark.parametrize("left", [[], ["000000.safetensors.partial-9"], ["index.json.partial-9"]])
def test_a_folder_left_by_a_kill_at_the_beginning_can_be_used(tmp_path, left):
    for name in left:
        (tmp_path / name).write_bytes(b"half")
    (tmp_path / ".lock").touch()
    assert len(stored(tmp_path)) == 22
    assert not list(tmp_path.glob("*.partial-*"))


def test_two_writers_of_one_folder_are_told_apart(tmp_path):
    from kdlearn.core.files import locked

    with locked(tmp_path), pytest.raises(CacheError, match="another process is making a cache"):
        stored(tmp_path)


@pytest.mark.parametrize("launched", [{}, {"WORLD_SIZE": "1"}])
def test_one_process_makes_its_cache_whatever_number_it_has(tmp_path, monkeypatch, launched):
    def waits(*given):
        raise AssertionError("nobody else will make it")

    monkeypatch.setattr(module, "_wait_for", waits)
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    for name, value in {"RANK": "1", **launched}.items():
        monkeypatch.setenv(name, value)
    assert len(stored(tmp_path)) == 22


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (None, "made with another teacher"),
        ("index.json", "index.json cannot be read"),
        ("notes.txt", "has files that are no teacher cache, such as notes.txt"),
    ],
)
def test_no_process_waits_for_what_the_first_one_refuses(tmp_path, monkeypatch, left, said):
    if left is None:
        cache_teacher(nn.Linear(4, 3), torch.randn(9, 4), tmp_path, progress=False)
    else:
        (tmp_path / left).write_text("mine")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(CacheError, match=said):
        stored(tmp_path)


def test_a_full_disk_is_told_and_what_stands_is_kept(tmp_path, monkeypatch):
    real, calls = module.save, []

    def full(tensors):
        calls.append(1)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(tensors)

    monkeypatch.setattr(module, "save", full)
    with pytest.raises(CacheError, match="No space left.*call again"):
        stored(tmp_path)
    kept = [".lock", "000000.safetensors", "index.json"]
    assert sorted(p.name for p in tmp_path.iterdir()) == kept
    assert len(stored(tmp_path)) == 22 and len(calls) == 4


def test_maps_take_far_less_room_than_features(tmp_path):
    maps = stored(tmp_path / "maps").bytes_per_row()
    features = [layer_term("hint", losses.hint_loss, ["0"])]
    whole = stored(tmp_path / "whole", terms=features).bytes_per_row()
    assert maps == {"logits": 20, "layer/0": 4 * 64, "layer/2": 4 * 16}
    assert whole == {"layer/0": 9 * maps["layer/0"]}
    half = stored(tmp_path / "half", dtype=torch.float16)
    assert half.bytes_per_row()["layer/0"] == 2 * 64
    exact = teacher()(images())
    rounded = ask(half, images(), torch.arange(22)).logits
    torch.testing.assert_close(rounded, exact, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("live", [True, False])
def test_a_smaller_student_needs_a_map_of_its_size(tmp_path, live):
    small = network(2, stride=2)
    small(images(1))
    rows = torch.arange(4)

    def pair(size):
        keep = AttentionMap(size=size)
        return [layer_term("attention", losses.attention_transfer_loss, ["0"], keep=keep)]

    def source(size):
        return teacher() if live else stored(tmp_path / str(size), terms=pair(size))

    with pytest.raises(ValueError, match=r"4x4 and the teacher's map 8x8.*size=\(4, 4\)"):
        Distiller(small, source(None), pair(None))(images(4), None, rows)
    right = Distiller(small, source((4, 4)), pair((4, 4)))(images(4), None, rows).total
    whole = [layer_term("attention", losses.attention_transfer_loss, ["0"])]
    torch.testing.assert_close(right, Distiller(small, teacher(), whole)(images(4)).total)


class Language(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))

    def forward(self, tokens: Tensor) -> Tensor:
        return 3 * self.layers(tokens)


TOKENS = torch.arange(30).view(6, 5) % 7


def test_stored_top_k_tokens_give_the_loss_of_the_live_ones(tmp_path):
    term = [sparse_term("top", losses.top_k_kl, TopK(3))]
    live = Distiller(Language(0), Language(1), term)(TOKENS).total
    kept = cache_teacher(Language(1), TOKENS, tmp_path, term, progress=False)
    total = Distiller(Language(0), kept, term)(TOKENS, None, torch.arange(6)).total
    torch.testing.assert_close(total, live)
    assert ask(kept, TOKENS, torch.arange(6)).logits is None
    assert kept.bytes_per_row() == {"logits#0": 5 * 3 * 4, "logits#1": 5 * 3 * 4}
    for other in (sparse_term("top", losses.top_k_kl, TopK(2)), logit_term("x", losses.dist_loss)):
        with pytest.raises(KeyError, match=r"is not in the cache, which has logits as TopK\(k=3\)"):
            Distiller(Language(0), kept, [other])


def test_stored_draws_are_right_on_average_and_the_same_after_a_stop(tmp_path):
    kind = Sampled(4000, seed=1)
    term = [sparse_term("drawn", losses.sampled_kl, kind)]
    kept = cache_teacher(Language(1), TOKENS, tmp_path / "a", term, progress=False)
    total = Distiller(Language(0), kept, term)(TOKENS, None, torch.arange(6)).total
    full = losses.forward_kl(Language(0)(TOKENS), Language(1)(TOKENS))
    assert total.item() == pytest.approx(full.item(), abs=0.05)
    again = cache_teacher(Language(1), TOKENS, tmp_path / "b", term, progress=False)
    first, second = (
        ask(c, TOKENS, torch.arange(6)).kept[term[0].wants[0]][1] for c in (kept, again)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first[0, 0], first[1, 2])


def test_augmenting_a_plain_cache_is_refused(tmp_path):
    distiller = Distiller(student(), stored(tmp_path), terms())
    with pytest.raises(ValueError, match="saw the plain images.*FixedCopies"):
        fit(distiller, (images(), labels()), augment=RandomShift(1), progress=False)
    with pytest.raises(ValueError, match="saw 22 samples and train has 20"):
        fit(distiller, (images(20), labels(20)), progress=False)
    with pytest.raises(ValueError, match="saw other samples than train has, in another order"):
        fit(distiller, (images().flip(0), labels()), progress=False)
    stream = [(images(11), labels(11)), (images(11), labels(11))]
    with pytest.raises(ValueError, match="stored by row"):
        fit(distiller, stream, progress=False)


def test_numbers_that_would_break_in_the_store_are_refused(tmp_path):
    loud = teacher()
    loud[4].bias.data[2] = 1e5
    with pytest.raises(ValueError, match=r"'logits' reaches 1e\+05, which torch.float16 cannot"):
        cache_teacher(loud, images(), tmp_path / "half", dtype=torch.float16, progress=False)
    wide = cache_teacher(loud, images(), tmp_path / "b", dtype=torch.bfloat16, progress=False)
    assert ask(wide, images(1), torch.tensor([0])).logits.isfinite().all()
    loud[4].bias.data[2] = torch.inf
    with pytest.raises(ValueError, match="gives inf in 'logits'"):
        cache_teacher(loud, images(), tmp_path / "inf", progress=False)
    loud[4].bias.data[2] = torch.nan
    with pytest.raises(ValueError, match="gives NaN in 'logits'"):
        cache_teacher(loud, images(), tmp_path / "nan", progress=False)


def test_other_copies_than_the_stored_are_refused(tmp_path):
    copies = FixedCopies(RandomShift(1), (0, 1))
    distiller = Distiller(student(), stored(tmp_path, copies=copies), terms())
    for other in (None, RandomShift(1), FixedCopies(RandomShift(1), (0, 2))):
        with pytest.raises(ValueError, match="pass the same to fit"):
            fit(distiller, (images(), labels()), augment=other, progress=False)
    loader = DataLoader(TensorDataset(images(), labels()), batch_size=4)
    with pytest.raises(ValueError, match="fixed copies are made of tensors"):
        fit(student(), loader, augment=copies, progress=False)


def test_rows_are_asked_for_and_checked(tmp_path):
    kept = stored(tmp_path)
    with pytest.raises(ValueError, match="asked by rows"):
        kept.outputs(Batch(images(2)))
    with pytest.raises(ValueError, match="row 22 is not in the cache, which has 22 rows"):
        ask(kept, images(2), torch.tensor([0, 22]))
    with pytest.raises(KeyError, match="teacher: 4 is not in the cache, which has logits, 0 as"):
        Distiller(student(), kept, [layer_term("x", losses.hint_loss, ["4"])])
    with pytest.raises(ValueError, match="there is no model"):
        _ = Distiller(student(), kept, terms()).teacher


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: cache_teacher(teacher(), images(0), f), "inputs is empty"),
        (lambda f: stored(f, batch_size=0), "batch_size is 0"),
        (lambda f: stored(f, shard_rows=0), "shard_rows is 0"),
        (lambda f: stored(f, dtype=torch.int8), "dtype is torch.int8"),
        (lambda f: stored(f, terms=[label_term()]), "nothing to store"),
    ],
)
def test_settings_out_of_range_are_told(tmp_path, make, said):
    with pytest.raises(ValueError, match=said):
        make(tmp_path)


def test_a_layer_that_the_teacher_lacks_is_named(tmp_path):
    with pytest.raises(KeyError, match="no module 'group1'"):
        stored(tmp_path, terms=[layer_term("hint", losses.hint_loss, ["group1"])])


class Augmenting(Dataset):
    """Draws while it loads."""

    def __len__(self) -> int:
        return 22

    def __getitem__(self, row: int):
        return images()[row] + torch.randn(8, 8), labels()[row]


def noisy(pairs):
    x, y = torch.utils.data.default_collate(pairs)
    return x + torch.randn(x.shape), y


@pytest.mark.parametrize(
    "data",
    [
        Augmenting(),
        DataLoader(Augmenting(), 4),
        DataLoader(TensorDataset(images(), labels()), 4, collate_fn=noisy),
    ],
)
def test_data_that_are_drawn_anew_have_no_stored_teacher(tmp_path, data):
    said = "changes each time it is loaded, so .*FixedCopies.*, or train with a teacher that runs"
    with pytest.raises(ValueError, match=f"inputs {said}"):
        cache_teacher(teacher(), data, tmp_path / "a", progress=False)
    assert not (tmp_path / "a").exists()
    with pytest.raises(ValueError, match=f"inputs {said}"):
        open_cache(tmp_path / "a", teacher=teacher(), inputs=data)
    with pytest.raises(ValueError, match=f"train {said}"):
        fit(Distiller(student(), stored(tmp_path / "b"), terms()), data, progress=False)
    fit(Distiller(student(), teacher(), terms()), data, epochs=1, progress=False)


def jitter(size: float):
    return lambda images, generator: images + size * torch.randn(images.shape, generator=generator)


def test_a_setting_that_an_augmentation_closes_over_counts(tmp_path):
    weak, strong = (FixedCopies(jitter(size), (0,)) for size in (0.1, 5.0))
    stored(tmp_path, copies=weak)
    known = {"teacher": teacher(), "inputs": images(), "terms": terms()}
    with pytest.raises(CacheError, match="with another augmentation: "):
        open_cache(tmp_path, copies=strong, **known)
    settings = {"size": 0.1}
    changing = FixedCopies(lambda x, generator: jitter(settings["size"])(x, generator), (0,))
    kept = stored(tmp_path / "b", copies=changing)
    model = Distiller(student(), kept, terms())
    fit(model, (images(), labels()), augment=changing, epochs=1, progress=False)
    settings["size"] = 5.0
    with pytest.raises(ValueError, match="augment changes the samples otherwise than when"):
        fit(model, (images(), labels()), augment=changing, epochs=1, progress=False)


def test_other_rounding_of_the_augmented_images_is_no_other_augmentation(tmp_path):
    copies = FixedCopies(jitter(0.1), (0,))
    stored(tmp_path, copies=copies)
    index = read_json(tmp_path / "index.json")
    answers = index["marks"]["augmentation"]["answers"]
    index["marks"]["augmentation"]["answers"] = [value * (1 + 1e-5) for value in answers]
    write_json(tmp_path / "index.json", index)
    known = {"teacher": teacher(), "inputs": images(), "terms": terms()}
    assert len(open_cache(tmp_path, copies=copies, **known)) == 22


def test_every_row_of_a_data_set_in_memory_counts(tmp_path):
    pairs = TensorDataset(images(), labels())
    kept = cache_teacher(teacher(), pairs, tmp_path, terms(), progress=False)
    few = torch.linspace(0, 21, 8).long()
    others = torch.tensor([row for row in range(22) if row not in few])
    rows = torch.arange(22)
    rows[others] = others.flip(0)
    moved = TensorDataset(images()[rows], labels()[rows])
    with pytest.raises(ValueError, match="saw other samples than train has, in another order"):
        fit(Distiller(student(), kept, terms()), moved, progress=False)
    relabeled = TensorDataset(images(), labels().flip(0))
    fit(Distiller(student(), kept, terms()), relabeled, epochs=1, progress=False)


@pytest.mark.parametrize("kind", ["plain", "shuffled", "a subset", "batches"])
def test_rows_are_those_of_the_data_set_whatever_a_sampler_names(tmp_path, kind):
    pairs = TensorDataset(images(), labels())
    rows = [20, 3, 4, 11, 12, 7, 1]
    loader = {
        "plain": lambda: DataLoader(pairs, 4),
        "shuffled": lambda: DataLoader(pairs, 4, shuffle=True),
        "a subset": lambda: DataLoader(pairs, 4, sampler=SubsetRandomSampler(rows)),
        "batches": lambda: DataLoader(pairs, batch_sampler=[rows[:3], rows[3:]]),
    }[kind]()
    settings = {"epochs": 2, "progress": False}
    expected = fit(Distiller(student(), teacher(), terms()), loader, **settings).epochs
    for number, inputs in enumerate((loader, pairs)):
        kept = cache_teacher(teacher(), inputs, tmp_path / str(number), terms(), progress=False)
        opened = open_cache(tmp_path / str(number), teacher=teacher(), inputs=loader, terms=terms())
        for source in (kept, opened):
            found = fit(Distiller(student(), source, terms()), loader, **settings).epochs
            for ours, theirs in zip(found, expected, strict=True):
                assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)


@pytest.mark.parametrize("shard_rows", [3, 12])
def test_rows_of_several_shapes_are_told(tmp_path, shard_rows):
    def padded(rows):
        length = 3 + max(int(row[0]) for row in rows)
        return torch.stack([row[:length] for row in rows]), None

    tokens = torch.arange(12).view(6, 2).repeat_interleave(5, dim=1) // 3
    loader = DataLoader(tokens, 3, collate_fn=padded)
    settings = {"shard_rows": shard_rows, "batch_size": 3, "progress": False}
    said = r"'logits' of shape \(4, 7\) for the samples of one batch and \(6, 7\) for those of"
    for _ in range(2):  # and where the first shard was made before
        with pytest.raises(ValueError, match=f"{said} another.*pad all samples to one length"):
            cache_teacher(Language(1), loader, tmp_path, **settings)


def test_what_has_another_first_dimension_than_the_sample_is_told(tmp_path):
    class Turned(Language):
        def forward(self, tokens: Tensor) -> Tensor:
            return super().forward(tokens).transpose(0, 1)

    with pytest.raises(ValueError, match="gives 5 rows of 'logits' for 6 samples: expected one"):
        cache_teacher(Turned(1), TOKENS, tmp_path, progress=False)


def test_a_cache_stays_where_it_is_when_the_program_moves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = stored(Path("here"))
    opened = open_cache("here", teacher=teacher(), inputs=images(), terms=terms())
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    for source in (kept, opened):
        assert ask(source, images(2), torch.tensor([0, 21])).logits.isfinite().all()


class LargeTensors(TorchDispatchMode):
    """Counts the tensors of some size or more that are made."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size, self.made = size, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        given = {x.untyped_storage().data_ptr() for x in tensors_in([args, kwargs or {}])}
        self.made += sum(
            x.numel() * x.element_size() >= self.size
            and x.untyped_storage().data_ptr() not in given
            for x in tensors_in(result)
        )
        return result


@pytest.mark.parametrize("seeds", [(), (3, 5, 7)])
def test_making_and_opening_holds_no_second_data_set_and_makes_each_copy_once(tmp_path, seeds):
    data = images(3000).transpose(2, 3)
    copies = FixedCopies(lambda block, generator: block + 0.1, seeds) if seeds else None
    with LargeTensors(data.numel() * data.element_size()) as large:
        cache_teacher(teacher(), data, tmp_path, copies=copies, shard_rows=700, progress=False)
        open_cache(tmp_path, teacher=teacher(), inputs=data, copies=copies)
    assert large.made == len(seeds)


@pytest.mark.parametrize("output", [torch.tensor(2**40 + 4), torch.tensor(1 + 2j)], ids=str)
def test_numbers_that_the_store_has_no_room_for_are_refused(output, tmp_path):
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Says(output)
            self.head = nn.Linear(2, 3)

        def forward(self, inputs):
            self.inner(inputs)
            return self.head(inputs)

    class Says(nn.Module):
        def __init__(self, value) -> None:
            super().__init__()
            self.value = value

        def forward(self, inputs):
            return self.value.expand(len(inputs), 1)

    terms = [layer_term("odd", nn.MSELoss(), ["inner"])]
    with pytest.raises(ValueError, match="that no 32 bits hold: leave it out"):
        cache_teacher(Odd(), torch.randn(4, 2), tmp_path, terms, progress=False)


def test_a_teacher_that_differs_in_the_stored_layer_alone_is_another(tmp_path):
    class Normalized(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.body, self.norm, self.factor = nn.Linear(4, 3), nn.LayerNorm(3, 0.0), factor
            self.scaled = nn.Identity()

        def forward(self, x):
            return self.norm(self.scaled(self.factor * self.body(x)))

    inputs, terms = torch.randn(6, 4), [layer_term("states", nn.functional.mse_loss, ["scaled"])]
    cache_teacher(Normalized(1.0), inputs, tmp_path, terms, progress=False)
    assert len(cache_teacher(Normalized(1.0), inputs, tmp_path, terms, progress=False)) == 6
    with pytest.raises(CacheError, match="made with another teacher"):
        cache_teacher(Normalized(2.0), inputs, tmp_path, terms, progress=False)


class Layers(nn.Module):
    """A layer that returns several tensors, in one of many forms."""

    def __init__(self, form) -> None:
        super().__init__()
        self.form, self.inner = form, nn.Identity()
        self.inner.register_forward_hook(lambda module, inputs, output: form(output))

    def forward(self, x):
        self.inner(x)
        return x


@pytest.mark.parametrize(
    "form",
    [
        lambda x: (x,),
        lambda x: [x, 2 * x],
        lambda x: tuple(number * x for number in range(13)),
    ],
    ids=["one", "two", "thirteen"],
)
def test_a_layer_of_several_tensors_comes_back_as_it_was(tmp_path, form):
    inputs = torch.randn(6, 4)
    terms = [layer_term("states", lambda a, b: a[0].mean(), ["inner"])]
    cached = cache_teacher(Layers(form), inputs, tmp_path, terms, progress=False)
    back = cached.outputs(Batch(inputs, rows=torch.arange(6))).taps["inner"]
    assert isinstance(back, tuple) and len(back) == len(form(inputs))
    for one, other in zip(back, form(inputs), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "form", [lambda x: (x, None), lambda x: {"a": x}, lambda x: ((x,), x), lambda x: ()]
)
def test_a_layer_that_is_no_tuple_of_tensors_is_told(tmp_path, form):
    terms = [layer_term("states", lambda a, b: a[0].mean(), ["inner"])]
    with pytest.raises(ValueError, match="as 'layer/inner', and a tensor or a tuple of tensors"):
        cache_teacher(Layers(form), torch.randn(6, 4), tmp_path, terms, progress=False)


def test_bytes_that_copies_make_numbers_of_can_be_stored_and_trained_on(tmp_path):
    images = torch.randint(256, (12, 1, 8, 8), dtype=torch.uint8)
    copies = FixedCopies(lambda x, generator: x[..., 1:7, 1:7].float() / 255, (1, 2))
    made = [nn.Sequential(nn.Flatten(), nn.Linear(36, 3)) for _ in range(2)]
    soft = [logit_term("soft", losses.soft_target_loss)]
    cached = cache_teacher(made[1], images, tmp_path, soft, copies=copies, progress=False)
    data = (images, torch.arange(12) % 3)
    for source in (cached, made[1]):
        student = copy.deepcopy(made[0])
        fit(Distiller(student, source, soft), data, epochs=2, augment=copies, progress=False)
        if source is cached:
            first = student[1].weight
    torch.testing.assert_close(first, student[1].weight)


def test_a_teacher_that_sees_its_inputs_otherwise_is_another_store(tmp_path):
    inputs, model = torch.rand(12, 4), nn.Linear(4, 3)
    inputs[5] = 3.0  # the one row in which the two differ, and none of those that are tried
    cache_teacher(model, inputs, tmp_path, progress=False)
    with pytest.raises(CacheError, match="made with another teacher_input"):
        open_cache(tmp_path, teacher=model, inputs=inputs, teacher_input=lambda x: x.clamp(0, 1))


def test_the_error_of_a_teacher_that_cannot_see_the_data_is_its_own(tmp_path):
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        cache_teacher(nn.Linear(5, 3), torch.randn(6, 4), tmp_path, progress=False)


@pytest.mark.parametrize("changed", [{"reduce": "amax"}, {"place": 10}])
def test_what_a_class_of_your_own_keeps_is_told_by_its_settings(tmp_path, changed):
    class Pooled:
        def __init__(self, reduce: str = "mean", place: int = 9) -> None:
            self.how, self.matrix = reduce, torch.zeros(100, 100)
            self.matrix[place] = 1.0

        def __repr__(self) -> str:
            return "Pooled"

        def reduce(self, output, generator=None):
            return getattr(output, self.how)(1)

        def restore(self, kept, student=None):
            return kept

    inputs, model = torch.rand(6, 4), nn.Sequential(nn.Linear(4, 3))
    args = model, inputs, tmp_path
    cache_teacher(*args, [layer_term("p", nn.functional.mse_loss, ["0"], keep=Pooled())])
    other = [layer_term("p", nn.functional.mse_loss, ["0"], keep=Pooled(**changed))]
    with pytest.raises(CacheError, match="made with another terms"):
        cache_teacher(*args, other)
