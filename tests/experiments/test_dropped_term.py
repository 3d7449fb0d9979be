import torch

from kdlearn.data.dyck import dyck_language
from kdlearn.experiments import dropped_term as experiment
from kdlearn.models import TableLM


def asked(seed=0):
    language = dyck_language(4, seed=seed)
    torch.manual_seed(seed)
    student = TableLM(4, 4, 2)
    return student, experiment.of_all_strings(student, language.next_log_probs(), language.strings)


def gradient(loss, student):
    return torch.autograd.grad(loss, student.table, retain_graph=True)[0]


def test_the_kl_of_strings_is_the_sum_of_the_kls_of_their_tokens():
    _, both = asked()
    torch.testing.assert_close(
        experiment.sequence_reverse_kl(both), experiment.token_reverse_kl(both)
    )


def test_its_gradient_has_a_part_that_the_tokens_leave_out():
    student, both = asked()
    rows = (both.student.exp() * (both.student - both.teacher)).sum(2).detach()
    to_come = rows.flip(1).cumsum(1).flip(1) - rows
    chance = both.log_student().exp().detach()[:, None]
    dropped = gradient((chance * to_come * both.taken(both.student)).sum(), student)
    token = gradient(experiment.token_reverse_kl(both), student)
    whole = gradient(experiment.sequence_reverse_kl(both), student)
    torch.testing.assert_close(token + dropped, whole, rtol=1e-3, atol=1e-6)
    assert (token - whole).norm() > 0.1 * whole.norm()


def test_a_student_that_is_the_teacher_loses_nothing():
    language = dyck_language(4)
    exact = language.next_log_probs()
    both = experiment.Both(exact, exact, language.strings)
    for loss in experiment.METHODS.values():
        assert abs(loss(both).item()) < 1e-5


def test_the_forward_kl_of_strings_has_the_teachers_chance_of_each():
    _, both = asked()
    p, q = both.log_teacher().double().exp(), both.log_student().double().exp()
    expected = (p * (p / q).log()).sum()
    torch.testing.assert_close(experiment.forward_kl(both).double(), expected, rtol=1e-4, atol=0)
