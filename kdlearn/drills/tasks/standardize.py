"""Drill: bring images to mean 0 and deviation 1."""

import torch
from torch import Generator, Tensor

from kdlearn.drills.grader import draws
from kdlearn.drills.grader.drill import Case, Drill, Edge, Wrong, switches


def standardize(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets, each channel standardized by the training images' mean and deviation.

    train: (N, C, H, W); test: (M, C, H, W). The deviation is over all N · H · W values of a
    channel, with division by their number (correction=0).
    """
    mean = train.mean(dim=(0, 2, 3), keepdim=True)
    deviation = train.std(dim=(0, 2, 3), correction=0, keepdim=True)
    return (train - mean) / deviation, (test - mean) / deviation


def example() -> Case:
    """Two training images and two test images of two channels, one by two positions."""
    train = torch.tensor([[[[1.0, 3.0]], [[10.0, 20.0]]], [[[2.0, 6.0]], [[30.0, 20.0]]]])
    test = torch.tensor([[[[0.0, 2.0]], [[10.0, 14.0]]], [[[1.0, 4.0]], [[20.0, 0.0]]]])
    return {"train": train.double(), "test": test.double()}


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


def edges() -> list[Edge]:
    """One channel, four channels, one test image, small values."""
    case = example()
    train, test = case["train"], case["test"]
    return [
        Edge("one channel", {"train": train[:, :1], "test": test[:, :1]}),
        Edge(
            "four channels",
            {"train": train.repeat(1, 2, 1, 1), "test": test.repeat(1, 2, 1, 1)},
            "Count the channels, do not write their number.",
        ),
        Edge("one test image", case | {"test": test[:1]}),
        Edge("channels of one row", {"train": train[:, :, :1], "test": test[:, :, :1]}),
        Edge(
            "values of 1e-5",
            {"train": 1e-5 * train, "test": 1e-5 * test},
            "A guard that is added is too large there.",
        ),
        Edge("float32 images", {"train": train.float(), "test": test.float()}),
    ]


def family(wrong: Wrong, train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
    """The two sets with the switches."""
    source = train
    if "sets-pooled" in wrong:
        source = torch.cat([train, test])
    if "statistics-of-test" in wrong:
        source = test
    mean, deviation = _statistics(wrong, source)
    if "another-data-set" in wrong and train.shape[1] == 3:
        mean = torch.tensor([0.485, 0.456, 0.406], dtype=train.dtype)[:, None, None]
        deviation = torch.tensor([0.229, 0.224, 0.225], dtype=train.dtype)[:, None, None]
    ours = _apply(wrong, train, mean, deviation)
    if "test-by-itself" in wrong:
        mean, deviation = _statistics(wrong, test)
    if "test-mean-of-its-own" in wrong:
        mean = _statistics(wrong, test)[0]
    if "mean-left-in-test" in wrong:
        mean = torch.zeros_like(mean)
    theirs = test if "test-untouched" in wrong else _apply(wrong, test, mean, deviation)
    return (theirs, ours) if "order" in wrong else (ours, theirs)


def _statistics(wrong: Wrong, images: Tensor) -> tuple[Tensor, Tensor]:
    """What is removed, and what is divided by."""
    dims = (0, 2, 3)
    if "one-for-all-channels" in wrong:
        dims = (0, 1, 2, 3)  # type: ignore[assignment]
    if "by-pixel" in wrong:
        dims = (0,)  # type: ignore[assignment]
    over = (0, 1, 2, 3) if "deviation-for-all-channels" in wrong else dims
    mean = images.mean(dims, keepdim=True)
    variance = images.var(over, correction=1 if "sample-deviation" in wrong else 0, keepdim=True)
    deviation = variance.sqrt()
    if "deviations-averaged" in wrong:
        deviation = images.std((2, 3), correction=0, keepdim=True).mean(0, keepdim=True)
    if "variance" in wrong:
        deviation = variance
    if "guard" in wrong:
        deviation = deviation + 1e-8
    if "mean-absolute" in wrong:
        deviation = (images - mean).abs().mean(over, keepdim=True)
    if "root-mean-square" in wrong:
        deviation = images.square().mean(over, keepdim=True).sqrt()
    if "not-divided" in wrong:
        deviation = torch.ones_like(deviation)
    if "median" in wrong:
        mean = images.transpose(0, 1).flatten(1).median(1).values[:, None, None]
    return mean, deviation


def _apply(wrong: Wrong, images: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
    """Standardize one set."""
    if "by-image" in wrong:
        mean = images.mean((2, 3), keepdim=True)
        deviation = images.std(
            (2, 3), correction=1 if "sample-deviation" in wrong else 0, keepdim=True
        )
    if "mean-left" in wrong:
        return images / deviation
    if "mean-after-division" in wrong:
        return images / deviation - mean
    return (images + mean if "mean-added" in wrong else images - mean) / deviation


drill = Drill(
    id="standardize",
    title="Whose mean is it?",
    task=(
        "Before training, color images are standardized by channel. Write it for a training and a "
        "test set. Whose statistics do you use for the test images, and whose would you use with a "
        "teacher from elsewhere?"
    ),
    minutes=4,
    level="warm-up",
    hints=(
        "What would the model see in use, one image at a time, if the test set used statistics of "
        "its own?",
        "One mean and one deviation for each channel. Over which dimensions of (N, C, H, W) is "
        "that, and which shape divides an image again?",
        "std() has a default that the docstring does not ask for. By which number does it divide?",
    ),
    explanation=(
        "One pass over the data. All decisions come from the training set; a test set with its own "
        "statistics hides that it is darker, which is what it should reveal. The three numbers of "
        "ImageNet that float around belong to ImageNet: on other data they do little harm to "
        "training and make the text beside them false. A pretrained teacher is another matter: it "
        "wants the statistics it was trained with, so a student with others needs a second copy of "
        "the batch. The interviewer listens for the leak and for that last point."
    ),
    reference=standardize,
    example=example,
    cases=cases,
    edges=edges,
    family=family,
    knobs=switches(
        """
        # whose
        - another-data-set: these are the statistics of another data set, ImageNet's: they neither
          center nor scale these images. Compute them from train.
        - test-by-itself: the test images are standardized by their own statistics: whatever differs
          between the sets is hidden, and a single image could not be treated so.
        - sets-pooled: the statistics are of both sets together: that is a leak, as the test images
          take part in what the model is trained on.
        - statistics-of-test: both sets are standardized by the statistics of the test set: they
          come from the training set.
        - test-untouched: the test images are left as they are: they get the training set's
          statistics.
        - test-mean-of-its-own: the test images lose their own mean, and are divided by the training
          set's deviation: both numbers come from the training set.
        # over
        - one-for-all-channels: one mean and one deviation serve all channels: a channel with larger
          values stays so. Leave the channel's dimension out of the mean.
        - by-pixel: each position has statistics of its own: the same pattern is scaled differently
          at each place. Average over positions too.
        - by-image: each image is standardized by its own statistics: how bright an image is against
          the others is lost.
        - deviation-for-all-channels: each channel has its own mean, and all share one deviation:
          take the deviation of each channel.
        - deviations-averaged: the deviation is the mean of each image's: the deviation over all
          values of a channel is larger, as images differ.
        # deviation
        - variance: the images are divided by the variance: their deviation afterwards is 1/σ, not
          1. Take its root.
        - sample-deviation: the deviation divides by n - 1, the default of std(): the task asks for
          division by the number of values, correction=0.
        - not-divided: the mean is removed and nothing is divided.
        - guard: a guard is added to the deviation: in a channel with small values it is as large as
          the deviation.
        - mean-absolute: the images are divided by the mean absolute deviation: asked for is the
          standard deviation.
        - root-mean-square: the images are divided by the root of the mean square, from which the
          mean was not removed.
        # mean
        - mean-left: the mean is not removed: the images are only divided.
        - mean-left-in-test: the test images are only divided: they lose the training set's mean as
          well.
        - mean-after-division: the mean of the values as they were is removed after the division:
          subtract first.
        - mean-added: the mean is added, not subtracted.
        - median: the median is removed, not the mean.
        # returned
        - order: the two sets are returned in the other order: train first, test second.
        """
    ),
    sizes=lambda case: {"N": len(case["train"]), "M": len(case["test"])},
    observe=lambda case, result: dict(zip(("training set", "test set"), result, strict=True)),
)
