"""Programs without what does nothing: copies, names used once, values unused, factors of 1.

A family of a drill, written out, is full of these. Statements are compared as trees.
"""

from __future__ import annotations

import ast
import builtins
import copy
from collections.abc import Sequence

WIDTH = 56  # columns, which fit a phone
# Whoever calls one of these does something besides giving a value.
ACTS = frozenset(
    (
        "Adam",
        "SGD",
        "append",
        "augment",
        "backward",
        "candidate",
        "eval",
        "layer",
        "load_state_dict",
        "model",
        "multinomial",
        "normal",
        "rand_like",
        "randn_like",
        "randperm",
        "reference",
        "register_forward_hook",
        "remove",
        "step",
        "student",
        "teacher",
        "train",
        "writer",
        "zero_grad",
    )
)
# A forward pass whose value nobody asks for can go; where it counts, the network is a model.
PASSES = frozenset(("student", "teacher"))


def loads(tree: ast.AST | Sequence[ast.AST]) -> list[str]:
    """Return the names that are read in a tree, as often as they are."""
    trees: Sequence[ast.AST] = tree if isinstance(tree, Sequence) else [tree]
    return [
        node.id
        for one in trees
        for node in ast.walk(one)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    ]


class Renamed(ast.NodeTransformer):
    """Give names other names."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename a variable."""
        node.id = self.names.get(node.id, node.id)
        return node

    def visit_arg(self, node: ast.arg) -> ast.arg:
        """Rename a parameter."""
        node.arg = self.names.get(node.arg, node.arg)
        return node


class Put(ast.NodeTransformer):
    """Put expressions in the place of names."""

    def __init__(self, given: dict[str, ast.expr]) -> None:
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        """Put the expression where the name is read."""
        if isinstance(node.ctx, ast.Load) and node.id in self.given:
            return copy.deepcopy(self.given[node.id])
        return node


def tidy(
    body: list[ast.stmt], live: frozenset[str] = frozenset(), kept: frozenset[str] = frozenset()
) -> list[ast.stmt]:
    """Return a body without copies, dead values and factors of 1.

    What is `live` is read after it, what is `kept` has a name of its own.
    """
    before = ""
    while (now := text_of(body)) != before:
        before = now
        body = [Plainer().visit(one) for one in body]
        body = _apart(_exchanged(body, live))
        body = _without_copies(body, live)
        body = _without_dead(body, live)
        body = _joined(body, live | kept)
        for place, one in enumerate(body):
            for name in ("body", "orelse", "finalbody"):
                inner = getattr(one, name, None)
                if inner and isinstance(inner, list):
                    around = frozenset(loads(body[:place] + body[place + 1 :])) | live
                    first = {x for x in loads(inner) if _read_before_written(x, inner)}
                    more = loads(one.test) if isinstance(one, ast.If) else ()
                    inner = tidy(inner, around | first | frozenset(more), kept)
                    setattr(one, name, inner or ([ast.Pass()] if name == "body" else []))
    return body


def text_of(body: list[ast.stmt]) -> str:
    """Return statements as source."""
    return "\n".join(ast.unparse(ast.fix_missing_locations(one)) for one in body)


def _exchanged(body: list[ast.stmt], live: frozenset[str]) -> list[ast.stmt]:
    """Give each name its new meaning where names made here are exchanged."""
    for place, node in enumerate(body):
        if not isinstance(node, ast.Assign) or pairs_of(node) is not None:
            continue
        target, value = node.targets[0], node.value
        if not isinstance(target, ast.Tuple) or not isinstance(value, ast.Tuple):
            continue
        pairs = list(zip(map(ast.unparse, target.elts), map(ast.unparse, value.elts), strict=False))
        made = set().union(*map(stores, body[:place])) - live
        if all({one, other} <= made for one, other in pairs):
            following = [Renamed(dict(pairs)).visit(one) for one in body[place + 1 :]]
            return body[:place] + following
    return body


def _apart(body: list[ast.stmt]) -> list[ast.stmt]:
    """Write the assignment of a tuple to a tuple as several."""
    out: list[ast.stmt] = []
    for node in body:
        pairs = pairs_of(node)
        if pairs is None:
            out.append(node)
        else:
            made = [ast.Assign([target], value, lineno=0) for target, value in pairs]
            for one in made:
                one.__dict__ |= {k: v for k, v in node.__dict__.items() if k in ("given", "result")}
            out += made
    return out


def pairs_of(node: ast.stmt) -> list[tuple[ast.expr, ast.expr]] | None:
    """Return what gets what in an assignment of a tuple to a tuple; None where the order counts."""
    if not isinstance(node, ast.Assign) or len(node.targets) > 1:
        return None
    target, value = node.targets[0], node.value
    if not isinstance(target, ast.Tuple) or not isinstance(value, ast.Tuple):
        return None
    if len(target.elts) != len(value.elts):
        return None
    pairs = list(zip(target.elts, value.elts, strict=True))
    for at, (one, _) in enumerate(pairs):
        if any(stores(one) & set(loads(later)) for _, later in pairs[at + 1 :]):
            return None
    return pairs


class Plainer(ast.NodeTransformer):
    """Arithmetic that does nothing goes."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.expr:
        """Leave out factors of 1, powers of 0 and 1, and sums with 0."""
        self.generic_visit(node)
        left, right = _number(node.left), _number(node.right)
        if isinstance(node.op, ast.Mult):
            if left == 1:
                return node.right
            if right == 1:
                return node.left
            if right == -1:
                return ast.UnaryOp(ast.USub(), node.left)
            if left == -1:
                return ast.UnaryOp(ast.USub(), node.right)
        if isinstance(node.op, ast.Div | ast.Pow) and right == 1:
            return node.left
        if isinstance(node.op, ast.Pow) and right == 0:
            return ast.Constant(1)
        if isinstance(node.op, ast.Add | ast.Sub) and right == 0:
            return node.left
        return node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Say no_grad() where gradients are switched off."""
        self.generic_visit(node)
        called, text = ast.unparse(node.func), ast.unparse(node)
        if text.endswith(".detach().detach()"):
            assert isinstance(node.func, ast.Attribute)
            return node.func.value
        if called == "F.cross_entropy":
            node.keywords = [x for x in node.keywords if ast.unparse(x.value) != "'mean'"]
        if text == "torch.set_grad_enabled(False)":
            return ast.parse("torch.no_grad()", mode="eval").body
        if called.endswith(".train") and text.endswith("train(True)"):
            node.args = []
        if text.endswith(".train(False)"):
            assert isinstance(node.func, ast.Attribute)
            node.func.attr, node.args = "eval", []
        return node

    def visit_Compare(self, node: ast.Compare) -> ast.expr:
        """Leave out comparisons with False."""
        self.generic_visit(node)
        if ast.unparse(node).endswith(" != False"):
            return node.left
        if ast.unparse(node).endswith(" != True"):
            return ast.UnaryOp(ast.Not(), node.left)
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        """Leave out a slice that takes all."""
        self.generic_visit(node)
        if isinstance(node.slice, ast.Slice) and ast.unparse(node.slice) in (":", ":None"):
            return node.value
        return node


def _number(node: ast.expr) -> float | None:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _simple_assign(node: ast.stmt) -> tuple[str, ast.expr] | None:
    if (
        isinstance(node, ast.Assign)
        and len(node.targets) == 1
        and isinstance(node.targets[0], ast.Name)
    ):
        return node.targets[0].id, node.value
    return None


def stores(node: ast.AST) -> set[str]:
    """Return the names that get a value in a tree."""
    return {
        one.id
        for one in ast.walk(node)
        if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store)
    }


def _without_copies(body: list[ast.stmt], live: frozenset[str]) -> list[ast.stmt]:
    """Replace `x = y` by y, as long as neither gets another value."""
    for place, node in enumerate(body):
        found = _simple_assign(node)
        if found is None or not isinstance(found[1], ast.Name):
            continue
        name, source = found[0], found[1].id
        if name == source:
            return body[:place] + body[place + 1 :]
        marks = getattr(node, "result", False), getattr(node, "given", False)
        if marks == (True, False) and _named_late(name, source, body, place, live):
            renamed = Renamed({source: name})
            return [renamed.visit(one) for one in body[:place] + body[place + 1 :]]
        following = body[place + 1 :]
        ends = len(following)
        for later, one in enumerate(following):
            if name in stores(one):
                ends = -1 if _simple_assign(one) is None else later
                break
        if ends < 0 or (ends == len(following) and name in live):
            continue
        last = ends + 1 if ends < len(following) else ends
        reach = following[:ends]
        changes = next((n for n, one in enumerate(reach) if source in stores(one)), len(reach))
        if any(name in loads(one) for one in following[changes + 1 : last]):
            continue
        if changes < len(reach) and _simple_assign(reach[changes]) is None:
            continue
        put = Put({name: ast.Name(source, ast.Load())})
        changed = [put.visit(one) for one in reach]
        if ends < len(following):
            one = following[ends]
            assert isinstance(one, ast.Assign)
            one.value = put.visit(one.value)
            changed.append(one)
        return body[:place] + changed + following[last:]
    return body


def _named_late(
    name: str, source: str, body: list[ast.stmt], place: int, live: frozenset[str]
) -> bool:
    """Whether what was made under one name can have its later name from the beginning."""
    before, after = body[:place], body[place + 1 :]
    made = any(source in stores(one) for one in before)
    taken = any(name in stores(one) or name in loads(one) for one in before)
    again = any(name in stores(one) or source in stores(one) for one in after)
    first = _read_before_written(source, before)
    return made and not taken and not again and not first and source not in live


def _acts(node: ast.AST, names: frozenset[str] = ACTS) -> bool:
    calls = [one.func for one in ast.walk(node) if isinstance(one, ast.Call)]
    called = {one.attr if isinstance(one, ast.Attribute) else ast.unparse(one) for one in calls}
    return bool(called & names)


def _without_dead(body: list[ast.stmt], live: frozenset[str]) -> list[ast.stmt]:
    """Leave out values that nobody asks for."""
    for place in range(len(body) - 1, -1, -1):
        node = body[place]
        following = body[place + 1 :]
        found = _simple_assign(node)
        if found is not None and not _read_before_written(found[0], following, live):
            if not _acts(found[1], ACTS - PASSES):
                return body[:place] + following
            return [*body[:place], ast.Expr(found[1]), *following]
        if isinstance(node, ast.FunctionDef) and node.name not in loads(following):
            return body[:place] + following
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
            names = [one.id for one in node.targets[0].elts if isinstance(one, ast.Name)]
            whole = len(names) == len(node.targets[0].elts) and not _acts(node.value)
            if whole and not any(_read_before_written(name, following, live) for name in names):
                return body[:place] + following
    return body


def _read_before_written(
    name: str, following: list[ast.stmt], live: frozenset[str] = frozenset()
) -> bool:
    for one in following:
        if isinstance(one, ast.For | ast.With | ast.If):
            head = {ast.For: "iter", ast.With: "items", ast.If: "test"}[type(one)]
            heads = getattr(one, head)
            if name in loads(heads) or any(
                _read_before_written(name, inner)
                for inner in (one.body, getattr(one, "orelse", []))
            ):
                return True
            continue
        if name in loads(one):
            return True
        if isinstance(one, ast.Assign) and name in stores(one):
            return False
    return name in live


def _joined(body: list[ast.stmt], live: frozenset[str]) -> list[ast.stmt]:
    """Put a value that is used once in its place, if the line stays short."""
    for place, node in enumerate(body):
        found = _simple_assign(node)
        if found is None:
            continue
        name, value = found
        following = body[place + 1 :]
        if isinstance(value, ast.Name):
            continue
        reach = _until_written(name, following)
        if name in live and not _written_anew(name, reach):
            continue
        if loads(reach).count(name) != 1:
            continue
        target = next(one for one in reach if name in loads(one))
        at = following.index(target)
        between = following[:at]
        names = set(loads(value))
        if any(names & stores(one) for one in between) or not isinstance(
            target, ast.Assign | ast.Return | ast.Expr
        ):
            continue
        if _acts(value) and at > 0 or _inside_a_loop(name, target):
            continue
        trial = Put({name: value}).visit(copy.deepcopy(target))
        text = ast.unparse(ast.fix_missing_locations(trial))
        numbered = name.rpartition("_")[2].isdigit()
        told = "softmax" in ast.unparse(value) and not numbered
        fits = len(text) <= WIDTH - 4 and not told
        if fits or isinstance(value, ast.Constant):
            following[at] = trial
            return body[:place] + following
    return body


def _written_anew(name: str, reach: list[ast.stmt]) -> bool:
    return bool(reach) and isinstance(reach[-1], ast.Assign) and name in stores(reach[-1])


def _until_written(name: str, following: list[ast.stmt]) -> list[ast.stmt]:
    out = []
    for one in following:
        out.append(one)
        if name in stores(one):
            break
    return out


def _inside_a_loop(name: str, node: ast.stmt) -> bool:
    kinds = ast.Lambda | ast.ListComp | ast.GeneratorExp | ast.DictComp | ast.SetComp
    return any(isinstance(one, kinds) and name in loads(one) for one in ast.walk(node))


def short_names(body: list[ast.stmt]) -> list[ast.stmt]:
    """Number names only where a word stands twice; a network's output is its logits."""
    names = set().union(*(stores(one) | set(loads(one)) for one in body)) if body else set()
    for name in sorted(names):
        stem, _, number = name.rpartition("_")
        if not number.isdigit() or not stem:
            continue
        words = [stem, *([f"{stem}_logits"] if stem in PASSES else [])]
        words += [f"{stem}_{lower}" for lower in range(2, int(number))]
        free = [one for one in words if one not in names and not hasattr(builtins, one)]
        if free:
            body = [Renamed({name: free[0]}).visit(one) for one in body]
            names = (names - {name}) | {free[0]}
    return body
