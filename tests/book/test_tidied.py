"""Programs without what does nothing: what goes, and what has to stay."""

from __future__ import annotations

import ast
import textwrap

import pytest
from tidied import short_names, text_of, tidy


def tidied(source: str) -> str:
    body = ast.parse(textwrap.dedent(source)).body
    return text_of(short_names(tidy(body)))


def same(source: str, expected: str) -> bool:
    return tidied(source) == textwrap.dedent(expected).strip()


def test_a_copy_goes_and_its_source_takes_its_place() -> None:
    assert same("y = x\nz = f(y)\nw = g(z, y)\nreturn_(w, z)", "z = f(x)\nreturn_(g(z, x), z)")


def test_a_copy_stays_where_its_source_changes_before_the_copy_is_read() -> None:
    kept = "old = x\nx = f(x)\nshow(old, x, old, x)"
    assert same(kept, kept)


def test_a_value_that_is_overwritten_unread_goes() -> None:
    assert same("t = a.mean()\nt = a.sum()\nshow(t, t)", "t = a.sum()\nshow(t, t)")


def test_a_call_that_does_something_stays_without_its_unused_value() -> None:
    assert same("r = model(x)\nshow(1)", "model(x)\nshow(1)")
    assert same("drawn = torch.multinomial(p, 1)\nshow(1)", "torch.multinomial(p, 1)\nshow(1)")


def test_what_a_loop_reads_in_its_next_round_stays() -> None:
    kept = "total = 0\nfor x in xs:\n    show(total, total)\n    total = f(x)"
    assert same(kept, kept)


def test_values_that_change_places_are_read_at_their_new_places() -> None:
    assert same(
        "a = f(1)\nb = g(2)\na, b = (b, a)\nshow(a, b, a, b)",
        "a = f(1)\nb = g(2)\nshow(b, a, b, a)",
    )


def test_a_call_with_an_effect_is_not_moved_behind_another() -> None:
    kept = "first = model(x)\nsecond = model(y)\nshow(second, first, second)"
    assert same(kept, kept)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("x * 1", "x"),
        ("1.0 * x", "x"),
        ("x * -1", "-x"),
        ("x / 1", "x"),
        ("x ** 1", "x"),
        ("x ** 0", "1"),
        ("x + 0", "x"),
        ("x[:None]", "x"),
        ("all(x) != False", "all(x)"),
        ("x.detach().detach()", "x.detach()"),
        ("torch.set_grad_enabled(False)", "torch.no_grad()"),
        ("net.train(False)", "net.eval()"),
        ("x * True", "x * True"),
        ("x ** 2", "x ** 2"),
    ],
)
def test_arithmetic_that_does_nothing_goes(before: str, after: str) -> None:
    assert same(f"show({before})", f"show({after})")


def test_a_number_is_left_out_of_a_name_that_stands_alone() -> None:
    assert same("s_3 = f(x)\nshow(s_3, s_3)", "s = f(x)\nshow(s, s)")
    assert same(
        "s = f(x)\ns_3 = f(y)\nshow(s, s, s_3, s_3)", "s = f(x)\ns_2 = f(y)\nshow(s, s, s_2, s_2)"
    )
