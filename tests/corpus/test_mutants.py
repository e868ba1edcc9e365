"""No check can be lost unnoticed: without any one of them, some store of the corpus fails.

Each mutant is the package with one change: a check that finds nothing, a place where a finding is
made that makes none, a condition that is another one. All of them are compiled into the modules at
once, each behind a switch. With every switch off the whole corpus passes, and shows for each mutant
the stores in which it would change anything at all; no other store can tell it from the original.
It is killed when one of those no longer gives exactly the findings that its expectation states.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import operator
import pkgutil
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Literal

import numpy as np
import pytest
from stores import NAMES, expectation, unpack
from test_corpus import check_store
from test_openers import audited, check_openers
from test_registry import NOT_IN_THE_CORPUS

import hnswcheck
from hnswcheck import errors, isolation
from hnswcheck.findings import REGISTRY
from hnswcheck.store import view

pytestmark = pytest.mark.slow

#: Modules and functions of other levels than standard, which is the one that is compared here.
OTHER_LEVELS = {
    "auditing.runner._Audit._check_sqlite",
    "checks.second_reader",
    "checks.reachability",
    "checks.sqlite",
    "checks.vectors",
    "auditing.deep",
    "auditing.probe",
}

#: Functions whose limits are tried with headers of our own, in ``unit/test_next_release.py``.
BY_UNITS = {"checks.next_release._by_header", "checks.next_release._by_labels"}

#: What checks build on, in rooms that judge nothing: modules and functions.
BENEATH = {
    "replay.balance.balance",
    "replay.effects.effect_on_element",
    "replay.effects.effect_on_record",
    "replay.index._Elements._element",
    "replay.index._Elements._outcome",
    "replay.index._Elements.create",
    "replay.index._Elements.delete",
    "replay.index._Elements.write",
    "replay.index.replay_index",
    "replay.records.count_pending",
    "replay.records.replay_records",
    "store.names.quarantined_folders",
    "store.segment.why_unsafe",
    "store.wal.row_fault",
}

#: Mutants that no fixture can tell from the original, by the reason.
UNTELLABLE: dict[str, tuple[str, ...]] = {
    "the two do the same": (
        "checks.elements.place: element >= 0 -> element > 0 (2)",
        "replay.records.replay_records: never not unseen",
        "checks.rolled_back.rolled_back: never not newer",
    ),
    "no range of releases that looks at settings ends where another kind of stores begins": (
        "checks.openers._check_others: numbers_of(o.last) >= oldest -> numbers_of(o.last) > oldest",
    ),
    "it changes words that describe a finding": (
        "checks.ledger._named: never counts[name]",
        "checks.ledger.check_watermark: never integer",
        "checks.ledger.check_watermark:"
        " release.watermark_type == 'INTEGER' -> release.watermark_type != 'INTEGER'",
    ),
    "it changes an account that no expectation states": (
        "replay.balance.balance: record in indexed -> record not in indexed",
        "store.names.quarantined_folders:"
        " never state.is_directory and (name := QUARANTINED.match(state.name))",
    ),
    "an archive does not keep what a file system allocates beyond the end of a file": (
        "checks.files._check_allocation: finds nothing",
        "checks.files._check_allocation: never s.allocated > 2 * s.size + ALLOCATION_SLACK",
        "checks.files._check_allocation: s.allocated > 2 * s.size + ALLOCATION_SLACK"
        " -> s.allocated >= 2 * s.size + ALLOCATION_SLACK",
        "checks.files._check_allocation: never large",
        "checks.files._check_allocation: without finding('file-oversized', len(large),"
        " [s.name for s in large], expected, found)",
    ),
    "for a store that cannot be opened, audit() raises; the program makes the report": (
        "auditing.runner.report_of_failure: without not-a-chroma-store of"
        " finding(error.finding, 1, [path_text(str(error))])",
        "auditing.runner.report_of_failure: without schema-unknown of"
        " finding(error.finding, 1, [path_text(str(error))])",
        "auditing.runner.report_of_failure: without sqlite-damaged of"
        " finding(error.finding, 1, [path_text(str(error))])",
    ),
    "what is no store fails before that": (
        "auditing.runner._Audit.run: without not-a-chroma-store of"
        " finding(error.finding, 1, [path_text(str(error))])",
    ),
}

#: Mutants that no store of the corpus tells from the original, by the store that would.
NOT_TOLD_YET: dict[str, tuple[str, ...]] = {
    "a collection with a name that is not UTF-8: catalogue-invalid": (
        "checks.system_tables._is_text: isinstance(value, bytes) and value.decode() is"
        " not None -> isinstance(value, bytes) or value.decode() is not None",
    ),
    "1.5.9 without table tenants: schema-unknown": (
        "auditing.runner._Audit.run: without schema-unknown of finding(error.finding, 1,"
        " [path_text(str(error))])",
    ),
    "exactly 100 elements and a capacity of 2**44: nothing": (
        "checks.files._check_sizes: header.count > SMALLEST_LOAD -> header.count >= SMALLEST_LOAD",
    ),
    "more than 100 elements and a capacity of exactly 2**33: nothing": (
        "checks.files._check_sizes:"
        " header.capacity > LARGEST_CAPACITY -> header.capacity >= LARGEST_CAPACITY",
    ),
    "0.6.3, the header of another dimension than sqlite and id map: both mismatches": (
        "checks.id_map.check_id_map: never header",
    ),
    "0.6.3, a tombstone with a label that not even the log explains: nothing": (
        "checks.elements._check_stray: never release.revives_tombstones",
    ),
    "0.6.3, killed before the id map after batches of which the first upserts a"
    " new id twice and the last adds one: flush-interrupted": (
        "replay.index.replay_index: never id_map is not None and counts_readded(id_map.shape)",
        "replay.index.replay_index: row.operation in ('add', 'upsert') ->"
        " row.operation not in ('add', 'upsert')",
    ),
    "METADATA's watermark below VECTOR's, and the log unpurged: lag from VECTOR's": (
        "checks.ledger.check_lag: row.seq_id > start -> row.seq_id >= start",
        "replay.records.count_pending: row.seq_id > start -> row.seq_id >= start",
    ),
    "the same, where the row at VECTOR's watermark upserts an id whose element"
    " is tombstoned: no replay-blocked": (
        "replay.index.replay_index: row.seq_id > start -> row.seq_id >= start",
    ),
    "the log unpurged, and sqlite without the record that the row at METADATA's"
    " watermark added: records-phantom": (
        "replay.records.replay_records: row.seq_id > watermark -> row.seq_id >= watermark",
    ),
    "a collection without dimension, and in its log a vector of 5 bytes: wal-unreadable": (
        "store.wal.row_fault: never size % 4",
    ),
}

# --- Switches ------------------------------------------------------------------------------------

COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "Lt": operator.lt,
    "LtE": operator.le,
    "Gt": operator.gt,
    "GtE": operator.ge,
    "Eq": operator.eq,
    "NotEq": operator.ne,
    "Is": operator.is_,
    "IsNot": operator.is_not,
    "In": lambda item, items: item in items,
    "NotIn": lambda item, items: item not in items,
}
#: What a comparison is changed to: its negation, and its neighbour if it has one.
INSTEAD: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.GtE, ast.LtE),
    ast.LtE: (ast.Gt, ast.Lt),
    ast.Gt: (ast.LtE, ast.GtE),
    ast.GtE: (ast.Lt, ast.Gt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}


class Switches:
    """What the instrumented modules ask.

    Attributes:
        on: the mutant to be; None for the original.
        felt: mutants that would have changed something where none was on.
    """

    def __init__(self) -> None:
        self.on: int | None = None
        self.felt: set[int] = set()

    def is_on(self, number: int) -> bool:
        """Whether the changed code is to run."""
        if self.on is None:
            self.felt.add(number)
        return self.on == number

    def is_silent(self, numbers: Mapping[str, int], finding: str) -> bool:
        """Whether this finding is not to be made here."""
        return self.is_on(numbers[finding])

    def unless_on(self, number: int, value: object) -> object:
        """A value, or False."""
        return value and not self.is_on(number) and value

    def found(self, number: int, findings: Iterator[object]) -> Iterator[object]:
        """What a check yields, or nothing."""
        for one in () if self.on == number else findings:
            if self.on is None:
                self.felt.add(number)
            yield one

    def decide(self, number: int, is_and: bool, *operands: Callable[[], Any]) -> Any:
        """Operands joined by "and", or by "or"."""
        if self.on is not None:
            return _join(is_and != (self.on == number), operands)
        result = _join(is_and, operands)
        self._feel(number, result, partial(_join, not is_and, operands))
        return result

    def compare(
        self, operators: Sequence[str], changed: Mapping[int, Sequence[str]], *operands: Any
    ) -> Any:
        """A comparison, or a chain of them."""
        if self.on is not None:
            return _compare(changed.get(self.on, operators), operands)
        result = _compare(operators, operands)
        for number, others in changed.items():
            self._feel(number, result, partial(_compare, others, operands))
        return result

    def _feel(self, number: int, result: Any, mutant: Callable[[], Any]) -> None:
        if number not in self.felt:
            same = False
            with suppress(Exception):
                same = bool(np.all(result == mutant()))
            if not same:
                self.felt.add(number)


def _join(is_and: bool, operands: Sequence[Callable[[], Any]]) -> Any:
    result: Any = is_and
    for operand in operands:
        result = operand()
        if bool(result) != is_and:
            break
    return result


def _compare(operators: Sequence[str], operands: Sequence[Any]) -> Any:
    if len(operators) == 1:  # of arrays, perhaps
        return COMPARE[operators[0]](*operands)
    pairs = zip(operators, operands, operands[1:], strict=False)
    return all(COMPARE[name](left, right) for name, left, right in pairs)


# --- Mutants -------------------------------------------------------------------------------------

#: What an instrumented module calls its switches.
SWITCHES = "__switches__"
NO_ARGUMENTS = ast.arguments([], [], None, [], [], None, [])
#: The findings that an error of a class may stand for.
OF_ERROR = {
    name: {
        one.finding
        for one in vars(errors).values()
        if inspect.isclass(one) and issubclass(one, kind) and one.finding
    }
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, errors.HnswcheckError)
}
What = Literal["check", "finding", "condition"]
Names = Mapping[str, Sequence[ast.AST]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of the package.

    Attributes:
        number: of its switch.
        ids: the findings that its function makes.
    """

    number: int
    what: What
    function: str
    change: str
    ids: frozenset[str]

    def __str__(self) -> str:
        return f"{self.function}: {self.change}"


class Instrument(ast.NodeTransformer):
    """Puts all mutants of a module into its syntax tree, each behind its switch.

    Attributes:
        tree: the module with its mutants.
        functions: the outermost functions that were visited.
    """

    def __init__(self, module: str, tree: ast.Module, mutants: list[Mutant]) -> None:
        self.module = module.removeprefix("hnswcheck.")
        self.mutants = mutants
        self.texts: Counter[str] = Counter()
        self.functions: set[str] = set()
        self.stack: list[ast.ClassDef | ast.FunctionDef] = []
        self.chosen = {name for name in BENEATH if name.startswith(f"{self.module}.")}
        self.unseen = {id(node) for node in ast.walk(tree) if _makes_finding(node)}
        self.constants = _bindings(*tree.body)
        self.names: Names = {}
        self.ids: frozenset[str] = frozenset()
        self.judges = self.module.startswith("checks.") and any(map(_is_check, ast.walk(tree)))
        self.judges |= bool(self.chosen) or self.module in BENEATH
        self.tree: ast.Module = ast.fix_missing_locations(self.visit(tree))
        assert not self.unseen, f"{module} makes a finding in a way that is unknown here"

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.stack.append(node)
        self.generic_visit(node)
        self.stack.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        if self.function is None:
            outer = [self.module, *(one.name for one in self.stack)]
            if self.chosen and ".".join([*outer, node.name]) not in self.chosen:
                return node
            self.names = {**self.constants, **_bindings(*ast.walk(node))}
            calls = [call for call in ast.walk(node) if _makes_finding(call)]
            self.ids = frozenset(i for call in calls for i in self._ids_of(call))
            self.functions.add(".".join(outer.name for outer in [*self.stack, node]))
        self.stack.append(node)
        number = self._mutant("check", "finds nothing") if _is_check(node) else None
        self.generic_visit(node)
        if number is not None:
            node.body = _disabled(node, number)
        self.stack.pop()
        return node

    @property
    def function(self) -> ast.FunctionDef | None:
        """The innermost function around."""
        functions = (outer for outer in reversed(self.stack) if isinstance(outer, ast.FunctionDef))
        return next(functions, None)

    def _mutant(self, what: What, change: str, ids: frozenset[str] | None = None) -> int:
        """A new mutant, here; its number."""
        function = ".".join([self.module, *(outer.name for outer in self.stack)])
        self.texts[text := f"{function}: {change}"] += 1
        if (nth := self.texts[text]) > 1:
            change += f" ({nth})"
        ids = self.ids if ids is None else ids
        self.mutants.append(Mutant(len(self.mutants), what, function, change, ids))
        return len(self.mutants) - 1

    # Places where a finding is made.

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        text, call = ast.unparse(node), node.value
        made = next((inner for inner in ast.walk(node) if id(inner) in self.unseen), None)
        silent: ast.expr | None = None
        if isinstance(made, ast.Call):
            silent = self._silent(made)
        elif isinstance(call, ast.Call) and self._is_of_faults(call.func):
            silent = self._silent(call)
        elif self._is_fault(call):
            silent = _ask("is_on", self._mutant("finding", f"without {text}"))
        self.generic_visit(node)
        return ast.If(ast.UnaryOp(ast.Not(), silent), [node], []) if silent else node

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        number = None
        if self._is_of_faults(node.target):
            number = self._mutant("finding", f"without {ast.unparse(node)}")
        self.generic_visit(node)
        if number is not None:
            node.value = _ask("unless_on", number, node.value)
        return node

    def visit_List(self, node: ast.List) -> ast.AST:
        silent = {
            at: self._silent(one)
            for at, one in enumerate(node.elts)
            if isinstance(one, ast.Call) and id(one) in self.unseen
        }
        self.generic_visit(node)
        for at, ask in silent.items():
            one = ast.List([node.elts[at]], ast.Load())
            node.elts[at] = ast.Starred(ast.IfExp(ask, ast.Tuple([], ast.Load()), one), ast.Load())
        return node

    def _silent(self, call: ast.Call) -> ast.expr:
        """Asks whether the finding is not to be made; a mutant for each that may be made here."""
        self.unseen.discard(id(call))
        text, kind = ast.unparse(call), ast.unparse(call.args[0])
        ids = self._ids_of(call)
        assert ids, f"{self.module} makes a finding of which nothing here tells the id: {text}"
        numbers: dict[str, int] = {}
        for one in ids:
            change = f"without {text}" if ids == [one] else f"without {one} of {text}"
            numbers[one] = self._mutant("finding", change, frozenset({one}))
        return _ask("is_silent", numbers, ast.parse(kind, mode="eval").body)

    def _ids_of(self, call: ast.AST) -> list[str]:
        """Findings that a call may make, by what the names in its first argument stand for."""
        assert isinstance(call, ast.Call)
        ids: set[str] = set()
        seen: set[str] = set()
        todo: list[ast.AST] = [call.args[0]]
        while todo:
            for node in ast.walk(todo.pop()):
                if isinstance(node, ast.Constant) and node.value in REGISTRY:
                    ids.add(str(node.value))
                elif isinstance(node, ast.Name) and node.id not in seen:
                    seen.add(node.id)
                    ids |= OF_ERROR.get(node.id, set())
                    todo += self.names.get(node.id, ())
        return sorted(ids)

    def _is_fault(self, node: ast.expr) -> bool:
        """Whether it yields what is wrong in words, rather than what another function yields."""
        words = _words(self.function.returns) if self.function else set()
        delegates = isinstance(node, ast.YieldFrom) and isinstance(node.value, ast.Call)
        is_yield = isinstance(node, ast.Yield | ast.YieldFrom) and not delegates
        return self.judges and words == {"Iterator", "str"} and is_yield

    def _is_of_faults(self, node: ast.AST) -> bool:
        """Whether it is a member of a parameter in which faults are gathered."""
        if self.function is None or not isinstance(node, ast.Attribute):
            return False
        names = [a.arg for a in self.function.args.args if "LinkFaults" in _words(a.annotation)]
        return ast.unparse(node.value) in names

    # Conditions.

    def visit_If(self, node: ast.If) -> ast.AST:
        return self._visit_tested(node)

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        return self._visit_tested(node)

    def _visit_tested(self, node: ast.If | ast.IfExp) -> ast.AST:
        number = self._never(node.test)
        self.generic_visit(node)
        if number is not None:
            node.test = _ask("unless_on", number, node.test)
        return node

    def visit_comprehension(self, node: ast.comprehension) -> ast.AST:
        numbers = [self._never(test) for test in node.ifs]
        self.generic_visit(node)
        tests = zip(numbers, node.ifs, strict=True)
        node.ifs = [t if n is None else _ask("unless_on", n, t) for n, t in tests]
        return node

    def visit_match_case(self, node: ast.match_case) -> ast.AST:
        number = self._never(node.guard) if node.guard else None
        self.generic_visit(node)
        if node.guard and number is not None:
            node.guard = _ask("unless_on", number, node.guard)
        return node

    def visit_BoolOp(self, node: ast.BoolOp) -> ast.AST:
        if not self._is_condition:
            return self.generic_visit(node)
        other = ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
        number = self._change(node, other)
        names = any(isinstance(inner, ast.NamedExpr) for inner in ast.walk(node))
        self.generic_visit(node)
        if names:  # which a lambda would keep to itself
            return ast.IfExp(_ask("is_on", number), ast.BoolOp(other.op, node.values), node)
        operands = [ast.Lambda(NO_ARGUMENTS, value) for value in node.values]
        return _ask("decide", number, isinstance(node.op, ast.And), *operands)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        if not self._is_condition:
            return self.generic_visit(node)
        changed: dict[int, list[str]] = {}
        for at, plain in enumerate(node.ops):
            for instead in INSTEAD[type(plain)]:
                ops = [*node.ops[:at], instead(), *node.ops[at + 1 :]]
                number = self._change(node, ast.Compare(node.left, ops, node.comparators))
                changed[number] = [type(op).__name__ for op in ops]
        self.generic_visit(node)
        plainly = [type(op).__name__ for op in node.ops]
        return _ask("compare", plainly, changed, node.left, *node.comparators)

    @property
    def _is_condition(self) -> bool:
        return self.judges and self.function is not None

    def _never(self, test: ast.expr) -> int | None:
        if not self._is_condition:
            return None
        return self._mutant("condition", f"never {ast.unparse(test)}")

    def _change(self, node: ast.expr, other: ast.expr) -> int:
        return self._mutant("condition", f"{ast.unparse(node)} -> {ast.unparse(other)}")


def _ask(question: str, *arguments: object) -> ast.expr:
    """A call of the switches."""
    given = [
        argument if isinstance(argument, ast.expr) else ast.parse(repr(argument), mode="eval").body
        for argument in arguments
    ]
    switches = ast.Name(SWITCHES, ast.Load())
    return ast.Call(ast.Attribute(switches, question, ast.Load()), given, [])


def _disabled(function: ast.FunctionDef, number: int) -> list[ast.stmt]:
    """The body of a check that can be disabled."""
    if (returned := _words(function.returns)) == {"None"}:
        return [ast.If(_ask("is_on", number), [ast.Return()], []), *function.body]
    arguments = copy.deepcopy(function.args)
    known = "Iterator" in returned and not arguments.kwonlyargs
    assert known, f"{function.name} is a check that nothing here knows how to disable"
    arguments.defaults = []
    names: list[ast.expr] = [ast.Name(one.arg, ast.Load()) for one in arguments.args]
    found = ast.Call(ast.Name("check", ast.Load()), names, [])
    check = copy.copy(function)
    check.name, check.args, check.decorator_list = "check", arguments, []
    ask = _ask("found", number, found)
    if any(isinstance(node, ast.Yield | ast.YieldFrom) for node in ast.walk(function)):
        return [check, ast.Expr(ast.YieldFrom(ask))]
    return [check, ast.Return(ask)]


def _makes_finding(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "finding"


def _is_check(node: ast.AST) -> bool:
    """Whether it is a function that yields findings or faults, or adds to those of the links."""
    if not isinstance(node, ast.FunctionDef):
        return False
    returned = _words(node.returns)
    taken = {word for argument in node.args.args for word in _words(argument.annotation)}
    return "Finding" in returned or returned == {"Iterator", "str"} or "LinkFaults" in taken


def _words(annotation: ast.expr | None) -> set[str]:
    return set() if annotation is None else set(re.findall(r"\w+", ast.unparse(annotation)))


def _bindings(*nodes: ast.AST) -> dict[str, list[ast.AST]]:
    """What names are bound to: values, what is looped over, classes of errors and arguments."""
    found: dict[str, list[ast.AST]] = defaultdict(list)
    for node in nodes:
        match node:
            case ast.Assign(targets=targets, value=value):
                bound = [(target, value) for target in targets]
            case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
                bound = [(target, value)]
            case ast.NamedExpr(target=target, value=value):
                bound = [(target, value)]
            case ast.AnnAssign(target=target, value=ast.expr() as value):
                bound = [(target, value)]
            case ast.ExceptHandler(name=str(name), type=ast.expr() as value):
                bound = [(ast.Name(name), value)]
            case ast.arg(arg=name, annotation=ast.expr() as value):
                bound = [(ast.Name(name), value)]
            case _:
                continue
        for target, value in bound:
            for part in ast.walk(target):
                if isinstance(part, ast.Name):
                    found[part.id].append(value)
    return found


def instrument() -> tuple[dict[str, Instrument], list[Mutant]]:
    """Every module that makes findings, with its mutants; and these."""
    modules: dict[str, Instrument] = {}
    mutants: list[Mutant] = []
    for found in pkgutil.walk_packages(hnswcheck.__path__, "hnswcheck."):
        spec = find_spec(found.name)
        assert spec
        assert spec.origin
        tree = ast.parse(Path(spec.origin).read_text("utf-8"))
        defines = any(isinstance(n, ast.FunctionDef) and n.name == "finding" for n in tree.body)
        name = found.name.removeprefix("hnswcheck.")
        judges = any(map(_makes_finding, ast.walk(tree))) or name.startswith("checks.")
        judges |= any(beneath == name or beneath.startswith(f"{name}.") for beneath in BENEATH)
        if judges and not defines and name not in OTHER_LEVELS:
            modules[found.name] = Instrument(found.name, tree, mutants)
    return modules, mutants


INSTRUMENTED, MUTANTS = instrument()

# --- The corpus ----------------------------------------------------------------------------------


class Corpus:
    """Every store, unpacked, and the mutants that each of them feels.

    Attributes:
        feels: names of stores by the number of a mutant.
    """

    def __init__(self, folder: Path, switches: Switches) -> None:
        self.switches = switches
        self.stores = {name: unpack(name, folder) for name in NAMES}
        self.expected = {name: expectation(name) for name in NAMES}
        self.named = {name: _ids_named(expected) for name, expected in self.expected.items()}
        self.feels: dict[int, set[str]] = defaultdict(set)
        for name in self.stores:
            switches.felt.clear()
            self.check(name)
            for number in switches.felt:
                self.feels[number].add(name)
        #: Those that killed last come first.
        self.order = sorted(NAMES, key=lambda name: -len(self.named[name]))

    def killer(self, mutant: Mutant) -> str | None:
        """The first store that fails; those that are to have a finding of the mutant's go first."""
        felt = [name for name in self.order if name in self.feels[mutant.number]]
        for name in sorted(felt, key=lambda name: not self.named[name] & mutant.ids):
            if self.kills(name, mutant):
                self.order.remove(name)
                self.order.insert(0, name)
                return name
        return None

    def kills(self, name: str, mutant: Mutant) -> bool:
        """Whether a store gives other findings than expected, or none at all."""
        self.switches.on = mutant.number
        try:
            with suppress(Exception):
                self.check(name, mutant)
                return False
            return True
        finally:
            self.switches.on = None

    def check(self, name: str, mutant: Mutant | None = None) -> None:
        """What is known of a store; for a mutant no more than what it may change."""
        of_openers = mutant and mutant.function.startswith("checks.openers.")
        if not of_openers:
            check_store(self.stores[name], self.expected[name])
        if of_openers or not mutant:
            check_openers(name, self.stores[name], audited(self.stores[name]))


def _ids_named(expected: Mapping[str, Any]) -> set[str]:
    collections = (expected["collections"] or {}).values()
    return set(expected["store"]).union(*(collection["findings"] for collection in collections))


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """The functions and methods that a module defines."""
    for member in vars(module).values():
        for found in vars(member).values() if inspect.isclass(member) else (member,):
            function: object = found.fget if isinstance(found, property) else found
            while hasattr(function, "__wrapped__"):
                function = function.__wrapped__
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function


def _codes(code: CodeType) -> Iterator[CodeType]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant
            yield from _codes(constant)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    """The corpus, with the instrumented functions in the place of the original ones."""
    switches = Switches()
    with pytest.MonkeyPatch.context() as patch:
        for name, instrumented in INSTRUMENTED.items():
            importlib.import_module(name)
            module = sys.modules[name]
            compiled = compile(instrumented.tree, str(module.__file__), "exec", dont_inherit=True)
            codes = {code.co_qualname: code for code in _codes(compiled)}
            functions = {function.__qualname__: function for function in _functions(module)}
            for function in instrumented.functions:
                patch.setattr(functions[function], "__code__", codes[function])
            patch.setattr(module, SWITCHES, switches, raising=False)
        audit = sys.modules["hnswcheck.auditing.runner"]
        patch.setattr(audit, "REST_SECONDS", 0.0)
        patch.setattr(view, "JOURNAL_SECONDS", 0.0)
        # The mutants are in this process only; pytest.fail is no Exception, so it is no kill.
        patch.setattr(isolation, "call_in_child", lambda *_: pytest.fail("read in another process"))
        yield Corpus(tmp_path_factory.mktemp("corpus"), switches)


# --- Tests ---------------------------------------------------------------------------------------

SURVIVORS = [
    mutant
    for listed in (UNTELLABLE, NOT_TOLD_YET)
    for mutants in listed.values()
    for mutant in mutants
]


def judged(what: What) -> list[Mutant]:
    """The mutants that have to die: not those of findings that no fixture can hold."""
    outside = frozenset(NOT_IN_THE_CORPUS)
    return [
        mutant
        for mutant in MUTANTS
        if mutant.what == what
        and not (mutant.ids and mutant.ids <= outside)
        and mutant.function not in OTHER_LEVELS | BY_UNITS
        and str(mutant) not in SURVIVORS
    ]


@pytest.mark.parametrize("mutant", judged("check"), ids=str)
def test_no_check_can_be_disabled_unnoticed(mutant: Mutant, corpus: Corpus) -> None:
    assert corpus.killer(mutant)


@pytest.mark.parametrize("mutant", judged("finding"), ids=str)
def test_no_finding_can_be_left_out_unnoticed(mutant: Mutant, corpus: Corpus) -> None:
    assert corpus.killer(mutant)


@pytest.mark.parametrize("mutant", judged("condition"), ids=str)
def test_no_condition_can_be_changed_unnoticed(mutant: Mutant, corpus: Corpus) -> None:
    assert corpus.killer(mutant)


@pytest.mark.parametrize("listed", SURVIVORS, ids=str)
def test_no_mutant_is_listed_as_a_survivor_that_dies(listed: str, corpus: Corpus) -> None:
    (mutant,) = (mutant for mutant in MUTANTS if str(mutant) == listed)
    assert corpus.killer(mutant) is None
