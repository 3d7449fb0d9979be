import inspect

import pytest
import torch

from kdlearn import losses
from kdlearn.models import SmallCNN
from kdlearn.recipes import RecipeError, build, distiller, load
from kdlearn.recipes.names import NETWORKS, check_options, function, make
from tests.recipes.small import OWN

# What each of these reads, that a recipe has no name for.
NOT_IN_A_RECIPE = {
    "deit_hard_loss": "class_logits, distillation_logits",
    "deit_soft_loss": "class_logits, distillation_logits",
    "flip_symmetry_loss": "gradients, flipped_gradients",
    "fsp_loss": "student_pair, teacher_pair",
    "gradient_attention_loss": "student_gradients",
    "layer_map": "student_layers",
    "linear_distillation_loss": "student_hidden, student_head",
    "sampled_kl": "teacher_log_probs, teacher_indices",
    "sampled_reverse_kl": "tokens",
    "sequence_reverse_kl": "tokens",
    "standardize_logits": "logits",
    "crd_loss": "places",
    "top_k_kl": "teacher_log_probs, teacher_indices",
}
# A layer of the network below whose output has the shape that a loss wants.
LAYERS = {
    "student_features": "features",
    "student_factors": "features",
    "student_embeddings": "flat",
    "student_states": "states",
    "student_scores": "scores",
    "student": "states",
}
OPTIONS = {
    "relation_loss": "relation_heads = 2",
    "MGDLoss": "student_channels = 8, teacher_channels = 8",
    "VIDLoss": "student_channels = 8, teacher_channels = 8",
}


def recipe_with(name: str) -> str:
    called = getattr(getattr(losses, name), "forward", getattr(losses, name))
    first = next(p for p in inspect.signature(called).parameters if p != "self")
    term = [f'loss = "{name}"', f"options = {{ {OPTIONS.get(name, '')} }}"]
    if first in LAYERS:
        term.append(f'layers = ["{LAYERS[first]}"]')
    return OWN.replace('{ loss = "soft_target_loss" }', f"{{ {', '.join(term)} }}")


@pytest.mark.parametrize("name", losses.__all__)
def test_every_public_loss_trains_a_student_by_name_or_says_what_it_reads(name, tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_with(name))
    if name in NOT_IN_A_RECIPE:
        with pytest.raises(
            RecipeError, match=f"{name} reads .*{NOT_IN_A_RECIPE[name]}.*; a recipe"
        ):
            load(path)
        return
    recipe = load(path)
    built = build(recipe, seed=1)
    model = distiller(recipe, "KD", built.student, built.teacher)
    loss = model(built.data.train.images[:6], built.data.train.labels[:6])
    loss.total.backward()
    size = sum(p.grad.norm() for p in built.student.parameters() if p.grad is not None)
    assert list(loss.parts) == [name] and 0 < size < torch.inf


def test_a_loss_with_weights_of_its_own_starts_from_the_seed(tmp_path):
    path = tmp_path / "recipe.toml"
    path.write_text(recipe_with("VIDLoss"))
    recipe = load(path)
    built = build(recipe, seed=0)
    first, again, other = (
        dict(
            distiller(
                recipe, "KD", built.student, built.teacher, seed=seed
            ).projectors.named_parameters()
        )
        for seed in (1, 1, 2)
    )
    assert first and all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("vit", "'vit' is not one of 'small-cnn', 'wrn'; your own has the form 'my_module:my_fun"),
        ("no_such_module:make", "cannot be imported .*No module named 'no_such_module'.*folder of"),
        ("math:no_such", "cannot be imported .*no_such"),
        ("math:pi", "'math:pi' is 3.14.*: expected a function"),
    ],
)
def test_a_name_that_stands_for_nothing_is_told(name, said):
    with pytest.raises(ValueError, match=said):
        function(name, NETWORKS)


def test_options_are_those_of_the_function():
    check_options(SmallCNN, ["width"], taken=("classes", "channels"))
    check_options(lambda **options: None, ["anything"], taken=())
    for given, said in (
        (["width", "classes"], "there is no 'classes'; known are width"),
        (["width", "whidt"], "there is no 'whidt'; did you mean 'width'"),
        ([], "'width' is missing and has no default"),
    ):
        with pytest.raises(ValueError, match=said):
            check_options(SmallCNN, given, taken=("classes", "channels"))


def test_what_is_offered_reaches_a_function_that_asks_for_it():
    assert make(SmallCNN, {"width": 2}, classes=7, channels=3).classifier.out_features == 7
    assert make(lambda: "own", {}, classes=7, channels=3) == "own"
