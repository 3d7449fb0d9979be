"""What does it cost to store the teacher on a few fixed copies instead of running it on fresh ones?

The recipe is that of warped digits, distillation at T = 4. Students differ in the views they see:
fresh ones in each epoch with a live teacher, or K fixed augmented copies, epoch after epoch the
next, whose teacher outputs are stored.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator

from kdlearn.data import FixedCopies
from kdlearn.distill import Distiller
from kdlearn.experiments import warped_digits
from kdlearn.experiments.common import MEASURED, Bench, Recipe, Row, seeded
from kdlearn.measure import predict
from kdlearn.store import cache_teacher
from kdlearn.training import fit

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
RECIPE = warped_digits.RECIPE
COLUMNS = MEASURED


def run_seed(
    seed: int,
    *,
    recipe: Recipe = RECIPE,
    methods: Iterable[str] = tuple(METHODS),
    on: str = "test",
) -> Iterator[Row]:
    """Yield a row for the teacher and one for each method, see `kdlearn.experiments.Experiment`."""
    methods = list(methods)
    bench = Bench.prepare(METHODS, seed, recipe, methods, on)
    assert recipe.augment is not None
    yield bench.row("teacher", bench.teacher_logits)
    for name in methods:
        count = METHODS[name]
        student = seeded(recipe.make_student, seed)
        copies = FixedCopies(recipe.augment, tuple(range(count))) if count else None
        with tempfile.TemporaryDirectory() as folder:
            source = (
                bench.teacher
                if count is None
                else cache_teacher(
                    bench.teacher, bench.images.images, folder, copies=copies, progress=False
                )
            )
            fit(
                Distiller(student, source, warped_digits.soft_targets(4)),
                bench.images,
                epochs=recipe.student_epochs,
                batch_size=recipe.batch_size,
                learning_rate=recipe.student_rate,
                augment=recipe.augment if count is None else copies,
                seed=seed,
                progress=False,
            )
        yield bench.row(name, predict(student, bench.held_out.images))
