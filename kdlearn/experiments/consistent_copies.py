"""What does it cost to store the teacher on a few fixed copies instead of running it on fresh ones?

The recipe is that of warped digits, distillation at T = 4. Students differ in the views they see: fresh ones in each
epoch with a live teacher, or K fixed augmented copies, epoch after epoch the next, whose teacher outputs are stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

from kdlearn.data import FixedCopies, RandomAffine, balanced_subset, warped_digits
from kdlearn.distill import Distiller
from kdlearn.experiments.common import Row, check_methods, held_out, measure, seeded
from kdlearn.experiments.warped_digits import RECIPE, Recipe, soft_targets, train_teacher
from kdlearn.measure.metrics import predict
from kdlearn.models import SmallCNN
from kdlearn.store import cache_teacher
from kdlearn.training.fit import fit

# The number of fixed copies; None for fresh views and a live teacher, 0 for the plain images.
METHODS: dict[str, int | None] = {
    "live, fresh views": None,
    "no augmentation": 0,
    "1 copy": 1,
    "2 copies": 2,
    "4 copies": 4,
    "8 copies": 8,
    "16 copies": 16,
    "32 copies": 32,
}


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Train a teacher and the students of one seed, and yield a row for each.

    Args:
        seed: of data, teacher, student and order.
        recipe: the numbers; a shorter one for a live run.
        methods: names from :data:`METHODS`.
        on: the split to measure on; ``"validation"`` while choosing.

    Yields:
        Columns ``accuracy``, ``agreement``, ``kl_to_teacher`` (nats, T = 1) and ``ece``.

    Raises:
        KeyError: an unknown method.
        ValueError: an unknown split.
    """
    methods = list(methods)
    check_methods(methods, METHODS)
    data = warped_digits(train=recipe.pool, seed=seed)
    split = held_out(data, on)
    teacher = train_teacher(data, recipe=recipe, seed=seed)
    few = balanced_subset(data.train, recipe.images, seed=seed)
    teacher_logits = predict(teacher, split.images)
    yield {
        "seed": seed,
        "method": "teacher",
        **measure(teacher_logits, teacher_logits, split.labels),
    }
    for name in methods:
        count = METHODS[name]
        student = seeded(lambda: SmallCNN(recipe.student_width), seed)
        copies = FixedCopies(RandomAffine(), tuple(range(count))) if count else None
        with tempfile.TemporaryDirectory() as folder:
            source = (
                teacher
                if count is None
                else cache_teacher(teacher, few.images, folder, copies=copies, progress=False)
            )
            fit(
                Distiller(student, source, soft_targets(4)),
                few,
                epochs=recipe.student_epochs,
                batch_size=recipe.batch_size,
                learning_rate=recipe.learning_rate,
                augment=RandomAffine() if count is None else copies,
                seed=seed,
                progress=False,
            )
        yield {
            "seed": seed,
            "method": name,
            **measure(predict(student, split.images), teacher_logits, split.labels),
        }
