"""Drill: bring images to mean 0 and deviation 1."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill


def standardize(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets with the mean and standard deviation of each channel of the training images removed.

    train: (N, C, H, W); test: (M, C, H, W). The deviation is over all N · H · W values of a channel, with division by
    their number (correction=0).
    """
    mean = train.mean(dim=(0, 2, 3), keepdim=True)
    deviation = train.std(dim=(0, 2, 3), correction=0, keepdim=True)
    return (train - mean) / deviation, (test - mean) / deviation


def cases(generator: Generator) -> list[Case]:
    """Channels with unlike statistics; the test set is darker."""
    made = []
    for n, m, channels, height, width in ((6, 4, 3, 5, 4), (5, 7, 3, 3, 6), (8, 3, 3, 4, 2)):
        level = draws.normal(generator, channels, 1, 1)
        spread = draws.normal(generator, channels, 1, 1).exp()
        made.append(
            {
                "train": level + spread * draws.normal(generator, n, channels, height, width),
                "test": level - 0.5 + spread * draws.normal(generator, m, channels, height, width),
            }
        )
    return made


drill = Drill(
    id="standardize",
    title="Whose mean is it?",
    task=(
        "Before training, color images are standardized by channel. Write it for a training and a test set. "
        "Whose statistics do you use for the test images, and whose would you use with a teacher from elsewhere?"
    ),
    minutes=4,
    level="warm-up",
    hints=(
        "What would the model see in use, one image at a time, if the test set used statistics of its own?",
        "One mean and one deviation for each channel, over images and positions of the training set.",
        "dim=(0, 2, 3), keepdim=True, correction=0, from train, applied to both",
    ),
    explanation=(
        "One pass over the data. All decisions come from the training set; a test set with its own statistics "
        "hides that it is darker, which is what it should reveal. The three numbers of ImageNet that float around "
        "belong to ImageNet: on other data they do little harm to training and make the text beside them false. A "
        "pretrained teacher is another matter: it wants the statistics it was trained with, so a student with "
        "others needs a second copy of the batch. The interviewer listens for the leak and for that last point."
    ),
    reference=standardize,
    cases=cases,
)


def _apply(train: Tensor, test: Tensor, mean: Tensor, deviation: Tensor) -> tuple[Tensor, Tensor]:
    """Apply given statistics to both."""
    return (train - mean) / deviation, (test - mean) / deviation


@drill.alternative
def by_moments(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """The mean of squares less the square of the mean."""
    values = train.transpose(0, 1).flatten(1)
    mean = values.sum(1) / values.shape[1]
    deviation = (values.square().mean(1) - mean.square()).sqrt()
    return _apply(train, test, mean[:, None, None], deviation[:, None, None])


@drill.alternative
def channel_by_channel(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """A loop over channels."""
    one, other = train.clone(), test.clone()
    for c in range(train.shape[1]):
        deviation, mean = torch.std_mean(train[:, c], correction=0)
        one[:, c] = (one[:, c] - mean) / deviation
        other[:, c] = (other[:, c] - mean) / deviation
    return one, other


@drill.mistake(
    "another-data-set",
    "these are the statistics of another data set, ImageNet's: they neither center nor scale these images. "
    "Compute them from train.",
    seen="a PyTorch tutorial on distillation, which calls such numbers those of its own data",
)
def imagenet(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Use the numbers that everybody knows."""
    mean = torch.tensor([0.485, 0.456, 0.406], dtype=train.dtype)[:, None, None]
    deviation = torch.tensor([0.229, 0.224, 0.225], dtype=train.dtype)[:, None, None]
    return _apply(train, test, mean, deviation)


@drill.mistake(
    "test-by-itself",
    "the test images are standardized by their own statistics: whatever differs between the sets is hidden, and a "
    "single image could not be treated so.",
)
def own_statistics(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Treat each set by itself."""
    return standardize(train, train)[0], standardize(test, test)[0]


@drill.mistake(
    "sets-pooled",
    "the statistics are of both sets together: that is a leak, as the test images take part in what the model is "
    "trained on.",
)
def pooled(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Compute statistics over everything."""
    both = torch.cat([train, test])
    return standardize(both, train)[1], standardize(both, test)[1]


@drill.mistake(
    "one-for-all-channels",
    "one mean and one deviation serve all channels: a channel with larger values stays so. Leave the channel's "
    "dimension out of the mean.",
)
def one_number(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Ignore the channels."""
    return _apply(train, test, train.mean(), train.std(correction=0))


@drill.mistake(
    "by-pixel",
    "each position has statistics of its own: the same pattern is scaled differently at each place. Average over "
    "positions too.",
)
def by_pixel(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Average over images alone."""
    return _apply(train, test, train.mean(0), train.std(0, correction=0))


@drill.mistake(
    "variance",
    "the images are divided by the variance: their deviation afterwards is 1/σ, not 1. Take its root.",
)
def by_variance(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Forget the root."""
    mean = train.mean((0, 2, 3), keepdim=True)
    return _apply(train, test, mean, train.var((0, 2, 3), correction=0, keepdim=True))
