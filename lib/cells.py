"""Which variables a notebook's parameters cells set, and not its other cells.

A notebook's kernel keeps the source of all that it ran in the list ``In``. Parameters cells are:
those that ran before the first check, a later one that sets ``profile`` or that papermill wrote,
and one that does nothing but give known parameters literal values. What the other cells
make, though it may bear a parameter's name, is the notebook's own.
"""

import ast
import symtable
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

_STATE = "_parameters"
_KERNEL_NAMES = frozenset({"In", "Out", "exit", "quit", "open", "get_ipython"})
_INJECTED = "# Parameters"  # the first line of a cell that papermill wrote


@dataclass
class _State:
    """What the checks so far have seen of a notebook.

    Attributes:
        seen: entries of ``In`` that were read.
        own: names that the last run of the cell which sets ``profile`` has set.
        others: names that all other parameters cells have set.
        lost: those that a cell which is no parameters cell has set anew since.
        values: of the last check, by name; they stand in for what is lost.
    """

    seen: int = 0
    own: set[str] = field(default_factory=set)
    others: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    values: dict[str, Any] = field(default_factory=dict)


def parameters_set(namespace: dict[str, Any], known: Collection[str]) -> dict[str, Any]:
    """Return the public variables that the parameters cells set, by name.

    Imports, functions and classes are left out: they are tools, not values. A namespace without
    a kernel's history, such as a plain dict, is one parameters cell. The state is kept in the
    namespace, under ``_parameters``.

    Args:
        namespace: the ``globals()`` of a notebook, or a plain dict.
        known: the names of all parameters.

    Raises:
        ValueError: another cell has set a parameter anew since its cell ran, before it was read.
    """
    sources = _history(namespace)
    if not sources:
        return _public(namespace, known)
    first = _STATE not in namespace
    state = _copied(namespace.get(_STATE, _State()))
    unread = _follow(state, sources, known, first)
    if first:
        state.others |= _unhidden(namespace, known) - state.own
    names = state.own | state.others
    now = _public({n: value for n, value in namespace.items() if n in names}, known)
    spoilt = sorted(unread & state.lost & now.keys())
    if spoilt:
        raise ValueError(f"{spoilt[0]} was set anew by another cell; run the parameters cell again")
    kept = state.lost & now.keys() & state.values.keys()
    state.values = now | {name: state.values[name] for name in kept}
    namespace[_STATE] = state
    return dict(state.values)


def _copied(state: _State) -> _State:
    return replace(state, others=set(state.others), lost=set(state.lost))


def _follow(state: _State, sources: list[str], known: Collection[str], first: bool) -> set[str]:
    """Bring the names of the state up to date; return those that parameters cells have set."""
    unread: set[str] = set()
    begin, state.seen = min(state.seen, len(sources)), len(sources)
    for source in sources[begin:]:
        names = _names_set(source)
        injected = source.startswith(_INJECTED)
        if "profile" in names and not injected and _is_same_cell(names, state.own, known):
            state.own = names
        elif "profile" in names or first or injected or _sets_only(source, known):
            state.others |= names
        else:
            state.lost |= names & (state.own | state.others)
            continue
        state.lost -= names
        unread |= names
    return unread


def _is_same_cell(names: set[str], own: set[str], known: Collection[str]) -> bool:
    """Whether a cell that sets `names` is likely the one that set `own`, which it then replaces.

    One that sets ``profile`` and little else is another: what was set before still holds.
    """
    before = own.intersection(known)
    return not before or 2 * len(names & before) > len(before)


def _history(namespace: Mapping[str, Any]) -> list[str]:
    """The sources of the cells that ran, the running one included; none outside a notebook."""
    cells = namespace.get("In")
    in_kernel = isinstance(cells, list) and callable(namespace.get("get_ipython"))
    return cells if in_kernel and any(cells) else []


def _unhidden(namespace: Mapping[str, Any], known: Collection[str]) -> set[str]:
    """Names that were set, but for those with which the kernel started."""
    hidden = getattr(namespace["get_ipython"](), "user_ns_hidden", {})
    public = _public(namespace, known)
    return {n for n, value in public.items() if hidden.get(n, hidden) is not value}


def _public(namespace: Mapping[str, Any], known: Collection[str]) -> dict[str, Any]:
    return {
        name: value
        for name, value in namespace.items()
        if not name.startswith("_") and name not in _KERNEL_NAMES
        if name in known or not _is_tool(value)
    }


def _is_tool(value: Any) -> bool:
    return isinstance(value, ModuleType) or callable(value)


def _names_set(source: str) -> set[str]:
    """The names that a cell sets, imports included; none where it is no Python."""
    try:
        symbols = symtable.symtable(source, "cell", "exec").get_symbols()
    except (SyntaxError, ValueError):
        return set()
    return {symbol.get_name() for symbol in symbols if symbol.is_assigned()}


def _sets_only(source: str, known: Collection[str]) -> bool:
    """Whether a cell does nothing but give known names literal values."""
    try:
        body = ast.parse(source).body
        targets = [_target(statement) for statement in body]
    except (SyntaxError, ValueError):
        return False
    return bool(targets) and all(name in known for name in targets)


def _target(statement: ast.stmt) -> str:
    """The name that a statement gives a literal value. Raises ValueError where it does not."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            ast.literal_eval(value)
            return name
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            ast.literal_eval(value)
            return name
    raise ValueError("no literal")
