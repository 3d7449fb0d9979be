"""CIFAR-10 and CIFAR-100 as tensors in memory; the only data here that need a download."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from kdlearn.core.checks import check_choice
from kdlearn.data.splits import Split, Splits

HELD_BACK = 0.1
COLUMNS = {"cifar10": "label", "cifar100": "fine_label"}


def cifar(name: Literal["cifar10", "cifar100"], *, folder: str | Path | None = None) -> Splits:
    """Load CIFAR through Hugging Face's ``datasets``, checked and normalized.

    Convention
        Images are float32, shape (N, 3, 32, 32), with mean 0 and standard deviation 1 for each
        channel over the part that is trained on. The last tenth of the training images is the
        validation split; the test split is the official one. ``base`` numbers the images, test
        images after training images.

    Args:
        name: "cifar10" or "cifar100" (its 100 fine labels).
        folder: a folder with ``train*.parquet`` and ``test*.parquet`` in the format of
            ``uoft-cs/cifar10``; without it the data set is downloaded, with its checksums verified,
            and kept in the cache of ``datasets``.

    Raises:
        ImportError: ``datasets`` is not installed.
        FileNotFoundError: the folder has no such files.
        ConnectionError: it could not be downloaded.
        ValueError: columns, sizes or labels are not those of CIFAR.

    Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """
    check_choice(name, "name", tuple(COLUMNS))
    parts = _load(name, folder)
    images, labels = zip(*(_tensors(parts[p], p, name) for p in ("train", "test")), strict=True)
    kept = len(labels[0]) - round(HELD_BACK * len(labels[0]))
    mean = images[0][:kept].mean(dim=(0, 2, 3), keepdim=True)
    std = images[0][:kept].std(dim=(0, 2, 3), keepdim=True)
    train, test = ((part - mean) / std for part in images)
    base = torch.arange(len(train) + len(test))
    return Splits(
        Split(train[:kept], labels[0][:kept], base[:kept]),
        Split(train[kept:], labels[0][kept:], base[kept : len(train)]),
        Split(test, labels[1], base[len(train) :]),
    )


def _load(name: str, folder: str | Path | None) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise ImportError("CIFAR needs one more package: pip install 'kdlearn[cifar]'.") from error
    if folder is None:
        try:
            return datasets.load_dataset(f"uoft-cs/{name}", verification_mode="all_checks")
        except (OSError, datasets.exceptions.DatasetsError) as error:
            raise ConnectionError(
                f"{name} could not be downloaded ({type(error).__name__}): connect to the "
                "network, or name the folder of its parquet files."
            ) from error
    found = {part: sorted(Path(folder).glob(f"{part}*.parquet")) for part in ("train", "test")}
    missing = [part for part, paths in found.items() if not paths]
    if missing:
        raise FileNotFoundError(
            f"{folder} has no {missing[0]}*.parquet: expected the files of uoft-cs/{name}."
        )
    return {
        part: datasets.Dataset.from_parquet([str(path) for path in paths], keep_in_memory=True)
        for part, paths in found.items()
    }


def _tensors(part: Any, which: str, name: str) -> tuple[Tensor, Tensor]:
    column = COLUMNS[name]
    missing = {"img", column} - set(part.column_names)
    if missing:
        raise ValueError(
            f"the {which} part has the columns {part.column_names}: expected 'img' and {column!r}."
        )
    pixels = np.stack([np.asarray(image.convert("RGB")) for image in part["img"]])
    if pixels.shape[1:] != (32, 32, 3):
        raise ValueError(
            f"images of the {which} part are {pixels.shape[1:]}: expected 32 x 32 x 3."
        )
    labels = torch.tensor(part[column])
    classes = 10 if name == "cifar10" else 100
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise ValueError(
            f"labels of the {which} part reach {int(labels.max())}: {name} has {classes}."
        )
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255, labels
