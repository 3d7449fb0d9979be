"""Right solutions of permuted-targets, written otherwise."""

import torch


def image_by_image(probabilities, labels, generator):
    """One permutation after the other."""
    rows = []
    for row, label in zip(probabilities, labels.tolist(), strict=True):
        others = torch.cat([row[:label], row[label + 1 :]])
        others = others[torch.randperm(len(others), generator=generator)]
        rows.append(torch.cat([others[:label], row[label : label + 1], others[label:]]))
    return torch.stack(rows)


def in_place(probabilities, labels, generator):
    """A swap with the label's place after the whole row was permuted."""
    order = torch.rand(probabilities.shape, generator=generator).argsort(1)
    rows = torch.arange(len(labels))
    at = (order == labels[:, None]).int().argmax(1)
    order[rows, at] = order[rows, labels]
    order[rows, labels] = labels
    return probabilities.gather(1, order)


RIGHT = (image_by_image, in_place)
