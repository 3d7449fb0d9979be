"""A drill's family with some switches set, written out: the program of who made that mistake.

A family is one function with an `if "name" in wrong` for each mistake. With the mistakes known,
these are decided, helpers that ask them too are put in their place, and what no longer matters
goes (tidied.py). What is left is a program of some ten lines that never heard of switches.
"""

from __future__ import annotations

import ast
import copy
import inspect
import itertools
import textwrap
from collections.abc import Callable
from types import FunctionType, ModuleType
from typing import Any

from tidied import Put, Renamed, loads, pairs_of, short_names, stores, tidy

from kdlearn.drills.grader.drill import Drill

SIMPLE = bool | int | float | str | None
LONG = 4  # statements of a helper that one does not want to read twice
# Functions that only compute.
PLAIN = {"len", "min", "max", "range", "tuple", "set", "frozenset", "any", "all", "next", "bool"}


class NotStraightError(Exception):
    """A function that cannot be put in the place of its call: it returns from inside a branch."""


def written_out(drill: Drill) -> dict[str, str]:
    """Return the program of each mistake of a drill, and under "" the right one.

    What has a name in the right one keeps it in the others, so that they differ where the mistake
    is.
    """
    right = Written(drill, frozenset())
    right = Written(drill, frozenset(), apart=right.long())
    rest = {
        name: Written(drill, frozenset({name}), right.names, right.apart) for name in drill.faults
    }
    return {"": right.source, **{name: one.source for name, one in rest.items()}}


class Written:
    """A drill's family with these faults, as source.

    What is `kept` has a name of its own; helpers that stand `apart` are functions of their own.
    """

    def __init__(
        self,
        drill: Drill,
        wrong: frozenset[str],
        kept: frozenset[str] = frozenset(),
        apart: frozenset[str] = frozenset(),
    ) -> None:
        assert isinstance(drill.family, FunctionType)
        function = _tree(drill.family)
        self.apart = apart
        self.writer = Writer(drill.family.__globals__, kept, apart)
        _open_keywords(function, drill)
        switches, *rest = [one.arg for one in (*function.args.args, *function.args.kwonlyargs)]
        self.writer.used.update(_bound(function), rest)
        self.writer.values[switches] = wrong
        body = tidy(self.writer.block(function.body), kept=kept)
        self.names = frozenset().union(*map(stores, body))
        places = len(drill.positions)
        arguments = ast.arguments(
            posonlyargs=[],
            args=[ast.arg(name) for name in rest[:places]],
            kwonlyargs=[ast.arg(name) for name in rest[places:]],
            kw_defaults=[None for _ in rest[places:]],
            defaults=[],
        )
        main = _function(drill.function, arguments, short_names(body))
        self.source = "\n\n".join(
            ast.unparse(ast.fix_missing_locations(one))
            for one in (*self.writer.helpers.values(), main)
        )

    def long(self) -> frozenset[str]:
        """Return the helpers that were put in their places several times, and are long."""
        found = self.writer.inlinings
        return frozenset(
            name for name, lines in found if lines > LONG and [x for x, _ in found].count(name) > 1
        )


def _function(name: str, arguments: ast.arguments, body: list[ast.stmt]) -> ast.FunctionDef:
    made = ast.parse("def f(): pass").body[0]
    assert isinstance(made, ast.FunctionDef)
    made.name, made.args, made.body = name, arguments, body or [ast.Pass()]
    return made


def _tree(function: Callable[..., Any]) -> ast.FunctionDef:
    tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    assert isinstance(tree, ast.FunctionDef)
    if isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant):
        tree.body = tree.body[1:]
    return tree


def _open_keywords(function: ast.FunctionDef, drill: Drill) -> None:
    """Name the keywords that a family passes on as `**given`."""
    rest = function.args.kwarg
    if rest is None:
        return
    named = {one.arg for one in function.args.kwonlyargs}
    names = [name for name in drill.keywords if name not in named]
    function.args.kwonlyargs += [ast.arg(name) for name in names]
    for node in ast.walk(function):
        if isinstance(node, ast.Call):
            node.keywords = [
                one
                for keyword in node.keywords
                for one in (
                    [ast.keyword(name, ast.Name(name, ast.Load())) for name in names]
                    if keyword.arg is None and ast.unparse(keyword.value) == rest.arg
                    else [keyword]
                )
            ]
    given = {f"{rest.arg}['{name}']": name for name in names}

    class Opened(ast.NodeTransformer):
        def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
            name = given.get(ast.unparse(node))
            self.generic_visit(node)
            return ast.Name(name, ast.Load()) if name else node

    function.body = [Opened().visit(one) for one in function.body]


def _bound(tree: ast.AST) -> set[str]:
    """Return all names that are given a value anywhere in a tree."""
    found = stores(tree) | {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    return found | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)} - {
        getattr(tree, "name", "")
    }


def _free(node: ast.expr) -> set[str]:
    inner = {
        one.id
        for part in ast.walk(node)
        if isinstance(part, ast.comprehension)
        for one in ast.walk(part.target)
        if isinstance(one, ast.Name)
    }
    return set(loads(node)) - inner


class Writer:
    """Decides the switches of one function, statement by statement."""

    def __init__(self, scope: dict[str, Any], kept: frozenset[str], apart: frozenset[str]) -> None:
        self.scope, self.kept, self.apart = scope, kept, apart
        self.inlinings: list[tuple[str, int]] = []
        self.values: dict[str, Any] = {}
        self.code: dict[str, ast.expr] = {}
        self.used: set[str] = set()
        self.helpers: dict[str, ast.FunctionDef] = {}

    # Statements.

    def block(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """Return a body without what the switches decide; what follows a return goes."""
        out: list[ast.stmt] = []
        chosen = _only_chosen_from(body)
        for statement in body:
            self._statement(copy.deepcopy(statement), out, chosen)
            if out and isinstance(out[-1], ast.Return | ast.Raise):
                break
        return out

    def _statement(self, node: ast.stmt, out: list[ast.stmt], chosen: set[str]) -> None:
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            node = ast.Assign([node.target], node.value, lineno=0)
        if isinstance(node, ast.AugAssign):
            load = copy.deepcopy(node.target)
            load.ctx = ast.Load()
            node = ast.Assign([node.target], ast.BinOp(load, node.op, node.value), lineno=0)
        if isinstance(node, ast.Assign):
            self._assign(node, out, chosen)
        elif isinstance(node, ast.If):
            test = self.fold(node.test, out)
            known, value = self.value(test)
            if known:
                out += self.block(node.body if value else node.orelse)
                return
            self._pin(node, out)
            body, orelse = self._branch(node.body), self._branch(node.orelse)
            if body or orelse:
                out.append(ast.If(test, body or [ast.Pass()], orelse))
        elif isinstance(node, ast.For):
            node.iter = self.fold(node.iter, out)
            self._pin(node, out)
            node.body = self._branch(node.body)
            if ast.unparse(node.iter) != "range(0)":
                out.append(node)
        elif isinstance(node, ast.With):
            for item in node.items:
                item.context_expr = self.fold(item.context_expr, out)
            node.body = self.block(node.body)
            if ast.unparse(node.items[0]) == "torch.set_grad_enabled(True)":
                out += node.body
            elif node.body:
                out.append(node)
        elif isinstance(node, ast.Try):
            node.body, node.finalbody = self.block(node.body), self.block(node.finalbody)
            out.append(node)
        elif isinstance(node, ast.FunctionDef):
            node.body, node.returns = self._branch(node.body), None
            for one in node.args.args:
                one.annotation = None
            out.append(node)
        elif isinstance(node, ast.Return | ast.Expr):
            if node.value is not None:
                node.value = self.fold(node.value, out)
            if not isinstance(node.value, ast.Constant) or isinstance(node, ast.Return):
                out.append(node)
        else:
            out.append(node)

    def _branch(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """A body of which is not known whether, or how often, it runs."""
        before = dict(self.values), dict(self.code)
        out = self.block(body)
        self.values, self.code = before
        return out

    def _pin(self, node: ast.stmt, out: list[ast.stmt]) -> None:
        """Give names that a branch changes the values that were known of them."""
        for name in sorted(_bound(node) & (set(self.values) | set(self.code))):
            held = self._literal(self.values.pop(name)) if name in self.values else None
            made = held if held is not None else self.code.pop(name)
            out.append(ast.Assign([ast.Name(name, ast.Store())], made, lineno=0))

    def _assign(self, node: ast.Assign, out: list[ast.stmt], chosen: set[str]) -> None:
        first, *others = node.targets
        value = node.value
        if isinstance(first, ast.Name) and first.id in chosen and isinstance(value, ast.Dict):
            known, held = self.value(value)
            self.values.pop(first.id, None)
            if known:
                self.values[first.id] = held
            self.code[first.id] = value
            return
        if isinstance(first, ast.Name) and isinstance(value, ast.BinOp) and first.id in self.code:
            entries, more = self.code[first.id], value.right
            if isinstance(entries, ast.Dict) and isinstance(more, ast.Dict):
                entries.keys += more.keys
                entries.values += more.values
                self.values.pop(first.id, None)
                return
        if isinstance(first, ast.Tuple) and isinstance(value, ast.GeneratorExp):
            value = self._one_by_one(value, len(first.elts), out)
        helped = isinstance(value, ast.Call) and self.resolved(value.func) is not None
        value = self.fold(value, out)
        begin = len(out)
        self._give_all(first, value, others, out)
        for one in out[begin:]:
            one.result = helped  # type: ignore[attr-defined]

    def _give_all(
        self, first: ast.expr, value: ast.expr, others: list[ast.expr], out: list[ast.stmt]
    ) -> None:
        pairs = pairs_of(ast.Assign([first], value, lineno=0))
        if pairs is not None and not others:
            for target, one in pairs:
                self._set(target, one, out)
            return
        self._set(first, value, out)
        for target in others:
            again = ast.Name(first.id, ast.Load()) if isinstance(first, ast.Name) else value
            self._set(target, self.fold(copy.deepcopy(again), out), out)

    def _one_by_one(
        self, value: ast.GeneratorExp, count: int, out: list[ast.stmt]
    ) -> ast.GeneratorExp | ast.Tuple:
        """Return the parts of a generator that goes through a tuple of so many."""
        (part,) = value.generators
        part.iter = self.fold(part.iter, out)
        if not isinstance(part.iter, ast.Tuple) or len(part.iter.elts) != count:
            return value
        parts = []
        for one in part.iter.elts:
            given = {}
            if isinstance(part.target, ast.Tuple) and isinstance(one, ast.Tuple):
                for target, inner in zip(part.target.elts, one.elts, strict=True):
                    given[ast.unparse(target)] = inner
            else:
                given[ast.unparse(part.target)] = one
            parts.append(Put(given).visit(copy.deepcopy(value.elt)))
        return ast.Tuple(parts, ast.Load())

    def _set(self, target: ast.expr, value: ast.expr, out: list[ast.stmt]) -> None:
        names = {node.id for node in ast.walk(target) if isinstance(node, ast.Name)}
        stored = stores(target)
        known, held = self.value(value)
        for name in stored:
            self.values.pop(name, None)
            self.code.pop(name, None)
        if isinstance(target, ast.Name):
            if known:
                self.values[target.id] = held
                return
            if isinstance(value, ast.Lambda):
                self.code[target.id] = value
                return
        for name in names - stored:
            if name in self.values and (held := self._literal(self.values.pop(name))) is not None:
                out.append(ast.Assign([ast.Name(name, ast.Store())], held, lineno=0))
        out.append(ast.Assign([target], value, lineno=0))

    # Expressions.

    def value(self, node: ast.expr) -> tuple[bool, Any]:
        """Say whether an expression has a known value, and which."""
        free = _free(node)
        if isinstance(node, ast.Compare) and ast.unparse(node).endswith(" is None"):
            if isinstance(node.left, ast.Name) and node.left.id in self.code:
                return True, False
            if isinstance(node.left, ast.Lambda):
                return True, False
        parts = list(ast.walk(node))
        other = {part.attr for part in parts if isinstance(part, ast.Attribute)} - {"items"}
        if not free <= set(self.values) | PLAIN or other:
            return False, None
        if any(isinstance(part, ast.Lambda | ast.Starred) for part in parts):
            return False, None
        try:
            expression = ast.fix_missing_locations(ast.Expression(copy.deepcopy(node)))
            value = eval(compile(expression, "", "eval"), dict(self.values))
        except Exception:
            return False, None
        # What is empty may be filled later.
        return (False, None) if isinstance(value, list | dict) and not value else (True, value)

    def _literal(self, value: Any) -> ast.expr | None:
        if isinstance(value, SIMPLE | list | tuple):
            return ast.parse(repr(value), mode="eval").body
        return None

    def fold(self, node: ast.expr, out: list[ast.stmt] | None) -> ast.expr:
        """Return an expression in which all that is known is decided.

        Calls are written out before the statement, into `out`; where that cannot be, they call a
        helper.
        """
        folded: ast.expr = Folder(self, out).visit(node)
        return folded

    def inlined(self, call: ast.Call, function: FunctionType, out: list[ast.stmt]) -> ast.expr:
        """Write the body of a helper before its call, and return what stands for the call."""
        if function.__name__ in self.apart:
            return self.hoisted(call, function)
        kept = dict(self.values), dict(self.code), set(self.used), len(out)
        tree = _tree(function)
        fresh = {name: self._fresh(name) for name in sorted(_bound(tree))}
        tree = Renamed(fresh).visit(tree)
        scope, self.scope = self.scope, function.__globals__
        try:
            self._bind(tree, call, out)
            body = self.block(tree.body)
            if not body or not isinstance(body[-1], ast.Return) or _returns(body[:-1]):
                raise NotStraightError
            self.inlinings.append((function.__name__, len(tidy(copy.deepcopy(body)))))
            out += body[:-1]
            assert body[-1].value is not None
            return body[-1].value
        except NotStraightError:
            self.values, self.code, self.used = kept[:3]
            del out[kept[3] :]
            self.scope = scope
            return self.hoisted(call, function)
        finally:
            self.scope = scope

    def _fresh(self, name: str) -> str:
        free = (f"{name}_{n}" if n > 1 else name for n in itertools.count(1))
        found = next(one for one in free if one not in self.used)
        self.used.add(found)
        return found

    def _bind(self, tree: ast.FunctionDef, call: ast.Call, out: list[ast.stmt]) -> None:
        parameters = [one.arg for one in tree.args.args]
        arguments = list(call.args)
        named = {one.arg: one.value for one in call.keywords}
        star = next((n for n, one in enumerate(arguments) if isinstance(one, ast.Starred)), None)
        if star is not None:
            count = len(parameters) - len(arguments) + 1
            taken = arguments[star]
            assert isinstance(taken, ast.Starred)
            targets: list[ast.expr] = [
                ast.Name(name, ast.Store()) for name in parameters[star : star + count]
            ]
            pairs = zip(
                parameters[:star] + parameters[star + count :],
                arguments[:star] + arguments[star + 1 :],
                strict=True,
            )
            for name, value in pairs:
                self._give(name, value, out)
            self._assign(
                ast.Assign([ast.Tuple(targets, ast.Store())], taken.value, lineno=0), out, set()
            )
            parameters = []
        else:
            for name, value in zip(parameters, arguments, strict=False):
                self._give(name, value, out)
            parameters = parameters[len(arguments) :]
        original = {self._base(name): name for name in [one.arg for one in tree.args.kwonlyargs]}
        original |= {self._base(name): name for name in parameters}
        defaults = dict(
            zip([a.arg for a in tree.args.args][::-1], tree.args.defaults[::-1], strict=False)
        )
        for keyword, name in original.items():
            given = named.get(keyword, defaults.get(name))
            if given is None:
                raise NotStraightError
            self._give(name, given, out)

    def _give(self, name: str, value: ast.expr, out: list[ast.stmt]) -> None:
        """Give a parameter its argument, which keeps the caller's name."""
        count = len(out)
        self._set(ast.Name(name, ast.Store()), value, out)
        for one in out[count:]:
            one.given = True  # type: ignore[attr-defined]

    def _base(self, name: str) -> str:
        stem, _, number = name.rpartition("_")
        return stem if number.isdigit() and stem else name

    def hoisted(self, call: ast.Call, function: FunctionType) -> ast.expr:
        """Call a helper that is written out as a function of its own."""
        tree = _tree(function)
        name = function.__name__.lstrip("_")
        parameters = [one.arg for one in tree.args.args]
        inner = Writer(function.__globals__, self.kept, self.apart)
        inner.used.update(_bound(tree))
        inner.helpers = self.helpers
        known: list[int] = []
        for place, value in enumerate(call.args):
            if isinstance(value, ast.Starred):
                break
            fixed, held = self.value(value)
            if fixed and not isinstance(held, int | float):
                inner.values[parameters[place]] = held
                known.append(place)
        body = short_names(tidy(inner.block(tree.body), kept=self.kept))
        left = [ast.arg(one) for place, one in enumerate(parameters) if place not in known]
        arguments = ast.arguments(
            posonlyargs=[], args=left, kwonlyargs=[], kw_defaults=[], defaults=[]
        )
        made = _function(name, arguments, body)
        while name in self.helpers and ast.unparse(self.helpers[name]) != ast.unparse(made):
            made.name = name = f"{name}_2"
        self.helpers[name] = made
        rest = [value for place, value in enumerate(call.args) if place not in known]
        return ast.Call(ast.Name(name, ast.Load()), rest, call.keywords)

    def resolved(self, node: ast.expr) -> Any:
        """Return the helper that a call names, if it asks switches."""
        found = None
        if isinstance(node, ast.Name):
            found = self.scope.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = self.scope.get(node.value.id)
            found = getattr(module, node.attr, None) if isinstance(module, ModuleType) else None
        if isinstance(found, type) and issubclass(found, tuple):
            return found
        if isinstance(found, FunctionType) and found.__module__.startswith("kdlearn.drills"):
            return found if found.__module__ != "kdlearn.drills.grader.draws" else None
        return None


def _returns(body: list[ast.stmt]) -> bool:
    return any(isinstance(node, ast.Return) for one in body for node in ast.walk(one))


def _only_chosen_from(body: list[ast.stmt]) -> set[str]:
    """Return names of dictionaries from which one entry is chosen by a switch, and nothing else."""
    chosen: list[str] = []
    for one in body:
        for node in ast.walk(one):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Name)
                and node.func.id == "next"
                and isinstance(node.args[0], ast.GeneratorExp)
            ):
                chosen += loads(node.args[0])
    every = loads(body)
    return {name for name in chosen if chosen.count(name) == every.count(name)}


class Folder(ast.NodeTransformer):
    """Decides what is known in one expression."""

    def __init__(self, writer: Writer, out: list[ast.stmt] | None) -> None:
        self.writer, self.out = writer, out

    def visit(self, node: ast.AST) -> Any:
        """Put a known value in the place of an expression, else look at its parts."""
        if isinstance(node, ast.expr) and not isinstance(node, ast.Constant | ast.Starred):
            asked = set(loads(node)) & set(self.writer.values)
            known, value = self.writer.value(node) if asked else (False, None)
            if known and isinstance(value, SIMPLE):
                return ast.parse(repr(value), mode="eval").body
            if known and isinstance(value, list | tuple) and isinstance(node, ast.Name):
                return ast.parse(repr(value), mode="eval").body
            if known and isinstance(value, frozenset | set):
                return node
        return super().visit(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        """Choose a branch if the test is decided."""
        test = self.visit(node.test)
        known, value = self.writer.value(test)
        if known:
            chosen: ast.expr = self.visit(node.body if value else node.orelse)
            return chosen
        node.test, node.body, node.orelse = test, self.visit(node.body), self.visit(node.orelse)
        if ast.unparse(node.body) == ast.unparse(node.orelse):
            return node.body
        one, other = self.writer.value(node.body), self.writer.value(node.orelse)
        if (
            one[0]
            and other[0]
            and not one[1]
            and not other[1]
            and isinstance(one[1], set | frozenset)
        ):
            return node.body
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.expr:
        """Leave out parts that are decided."""
        rest: list[ast.expr] = []
        for part in node.values:
            folded = self.visit(part)
            known, value = self.writer.value(folded)
            if not known:
                rest.append(folded)
            elif bool(value) == isinstance(node.op, ast.Or):
                return (
                    ast.Constant(bool(value)) if not rest else self._joined(node, [*rest, folded])
                )
        if not rest:
            return ast.Constant(isinstance(node.op, ast.And))
        return self._joined(node, rest)

    def _joined(self, node: ast.BoolOp, parts: list[ast.expr]) -> ast.expr:
        known, value = self.writer.value(parts[-1])
        if known and bool(value) == isinstance(node.op, ast.Or):
            return ast.Constant(bool(value))
        return parts[0] if len(parts) == 1 else ast.BoolOp(node.op, parts)

    def visit_Lambda(self, node: ast.Lambda) -> ast.expr:
        """Look into a function without writing anything before it."""
        node.body = Folder(self.writer, None).visit(node.body)
        return node

    def _quiet(self, node: Any) -> Any:
        inner = Folder(self.writer, None)
        for part in node.generators:
            part.iter = self.visit(part.iter)
            part.ifs = [inner.visit(one) for one in part.ifs]
        for name in ("elt", "key", "value"):
            if hasattr(node, name):
                setattr(node, name, inner.visit(getattr(node, name)))
        return node

    visit_ListComp = visit_GeneratorExp = visit_SetComp = visit_DictComp = _quiet

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """Choose an entry, apply a function that is known, or write a helper out."""
        picked = self._picked(node)
        if picked is not None:
            return picked
        if isinstance(node.func, ast.Name) and node.func.id in self.writer.code:
            made = copy.deepcopy(self.writer.code[node.func.id])
            return self._applied(made, node)
        helper = self.writer.resolved(node.func)
        if isinstance(helper, type):
            return ast.Tuple([self.visit(one) for one in node.args], ast.Load())
        if helper is not None:
            node.args = [
                one
                if self.writer.value(one)[0] and not isinstance(one, ast.Starred)
                else self.visit(one)
                for one in node.args
            ]
            for keyword in node.keywords:
                keyword.value = self.visit(keyword.value)
            if self.out is None:
                return self.writer.hoisted(node, helper)
            return self.writer.inlined(node, helper, self.out)
        self.generic_visit(node)
        return node

    def _applied(self, made: ast.expr, node: ast.Call) -> ast.expr:
        if not isinstance(made, ast.Lambda):
            node.func = made
            applied: ast.expr = self.generic_visit(node)  # type: ignore[assignment]
            return applied
        names = [one.arg for one in made.args.args]
        given = dict(zip(names, (self.visit(one) for one in node.args), strict=True))
        result: ast.expr = self.visit(Put(given).visit(made.body))
        return result

    def _picked(self, node: ast.Call) -> ast.expr | None:
        """The entry of `next((d[name] for name in d if name in wrong), otherwise)`."""
        if not (
            isinstance(node.func, ast.Name)
            and node.func.id == "next"
            and isinstance(node.args[0], ast.GeneratorExp)
            and len(node.args) == 2
        ):
            return None
        choice = node.args[0]
        part = choice.generators[0]
        source = part.iter
        if not isinstance(source, ast.Name) or source.id not in self.writer.code:
            return None
        entries = self.writer.code[source.id]
        if not isinstance(entries, ast.Dict) or not isinstance(part.target, ast.Name):
            return None
        for key, value in zip(entries.keys, entries.values, strict=True):
            assert isinstance(key, ast.Constant)
            tests = [Put({part.target.id: key}).visit(copy.deepcopy(one)) for one in part.ifs]
            if all(self.writer.value(test)[1] for test in tests):
                if isinstance(choice.elt, ast.Call):
                    call = ast.Call(value, [], [])
                    return self._applied(copy.deepcopy(value), call)
                folded: ast.expr = self.visit(copy.deepcopy(value))
                return folded
        otherwise: ast.expr = self.visit(node.args[1])
        return otherwise
