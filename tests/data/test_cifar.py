import datasets
import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Image
from PIL import Image as Picture

from kdlearn.data import cifar


def stand_in(folder, name="cifar10", count=60, side=32, columns=None, classes=None):
    """Parquet files with the columns of uoft-cs/cifar10 or cifar100, random pixels."""
    classes = classes or (10 if name == "cifar10" else 100)
    columns = columns or (["label"] if name == "cifar10" else ["fine_label", "coarse_label"])
    numbers = np.random.default_rng(0)
    pixels = {}
    for part, size in (("train", count), ("test", 20)):
        pixels[part] = numbers.integers(0, 256, (size, side, side, 3), dtype=np.uint8)
        content = {"img": [Picture.fromarray(image) for image in pixels[part]]}
        kinds = {"img": Image()}
        for column in columns:
            content[column] = [row % classes for row in range(size)]
            kinds[column] = ClassLabel(num_classes=classes)
        data = Dataset.from_dict(content, features=Features(kinds))
        data.to_parquet(folder / f"{part}-00000-of-00001.parquet")
    return pixels


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_images_come_back_normalized_and_split(tmp_path, name):
    pixels = stand_in(tmp_path, name)
    data = cifar(name, folder=tmp_path)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [54, 6, 20]
    train = torch.from_numpy(pixels["train"][:54]).permute(0, 3, 1, 2).double() / 255
    mean, std = train.mean(dim=(0, 2, 3)), train.std(dim=(0, 2, 3))
    expected = (train - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(data.train.images, expected.float())
    classes = 10 if name == "cifar10" else 100
    assert data.test.labels.tolist() == [row % classes for row in range(20)]
    together = torch.cat([data.train.base, data.validation.base, data.test.base])
    assert together.tolist() == list(range(80))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"side": 28}, r"\(28, 28, 3\): expected 32 x 32 x 3"),
        ({"columns": ["class"]}, "expected 'img' and 'label'"),
        ({"classes": 12}, "reach 11: cifar10 has 10"),
    ],
)
def test_files_that_are_not_cifar_are_told(tmp_path, settings, said):
    stand_in(tmp_path, **settings)
    with pytest.raises(ValueError, match=said):
        cifar("cifar10", folder=tmp_path)


def test_what_is_missing_is_told(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no train\*.parquet"):
        cifar("cifar10", folder=tmp_path)
    with pytest.raises(ValueError, match="expected one of 'cifar10', 'cifar100'"):
        cifar("mnist")

    def offline(*arguments, **settings):
        assert settings == {"verification_mode": "all_checks"}
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(ConnectionError, match="connect to the network, or name the folder"):
        cifar("cifar10")
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(ImportError, match=r"pip install 'kdlearn\[cifar\]'"):
        cifar("cifar10")
