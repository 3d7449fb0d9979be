import torch

from kdlearn.experiments.vit_attention import copying, make_vit, maps_of

IMAGES = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0))


def models():
    torch.manual_seed(0)
    return make_vit().eval(), make_vit().eval()


def test_copied_maps_replace_the_students_own_whatever_its_queries_and_keys_are():
    student, teacher = models()
    maps = maps_of(teacher, IMAGES)
    before = copying(student, IMAGES, maps)
    for layer in student.layers:  # queries and keys are the first two thirds
        layer.attention.query_key_value.weight.data[:96] *= -3
    torch.testing.assert_close(copying(student, IMAGES, maps), before)
    assert not torch.allclose(student(IMAGES), before, atol=1e-3)


def test_copying_trains_values_and_leaves_queries_and_keys_without_a_gradient():
    student, teacher = models()
    copying(student, IMAGES, maps_of(teacher, IMAGES)).sum().backward()
    for layer in student.layers:
        slope = layer.attention.query_key_value.weight.grad
        assert (slope[:96] == 0).all() and slope[96:].abs().sum() > 0


def test_copying_leaves_no_hook_behind():
    student, teacher = models()
    before = student(IMAGES)
    copying(student, IMAGES, maps_of(teacher, IMAGES))
    assert torch.equal(student(IMAGES), before)
    assert not any(module._forward_hooks for module in student.modules())
