"""Which caller of a node is pinning what: so that what nobody goes on with can be given up.

A root that is joining says that somebody goes on with it. Who is killed cannot take that back, so
it is noted here, in memory, whose it is. No sockets and no disk here.
"""

from collections.abc import Hashable

from xorbit.pins import AddRoot, LeaveRoot, Order, Told


class Joins:
    """Follows the orders of callers, each by its line."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, dict[LeaveRoot, None]] = {}
        """By line, what would give up each root that it is pinning."""
        self._abandoned: dict[LeaveRoot, None] = {}

    def asked(self, line: Hashable, order: Order) -> None:
        """Note what a caller is about to have done: it may go before it hears of it."""
        if isinstance(order, AddRoot) and order.root.stage == "joining":
            self._lines.setdefault(line, {})[_leaving(order)] = None

    def answered(self, line: Hashable, order: Order, told: Told) -> None:
        """Note what became of an order."""
        joins = self._lines.get(line, {})
        if isinstance(order, LeaveRoot):
            # It may go before the pins have: then they are let go of as if it had been killed.
            joins.pop(LeaveRoot(order.key, order.tree, joining_only=True), None)
        elif isinstance(order, AddRoot) and any(it.root.stage == "kept" for it in told.roots):
            joins.pop(_leaving(order), None)
            if not joins:
                self._lines.pop(line, None)

    def gone(self, line: Hashable) -> bool:
        """Note that a caller is gone; return whether it may have left something to let go of."""
        joins = self._lines.pop(line, None)
        self._abandoned |= joins or {}
        return joins is not None

    def abandoned(self) -> LeaveRoot | None:
        """Return what gives up a root that only callers who are gone were pinning, if any."""
        others = {it for joins in self._lines.values() for it in joins}
        while self._abandoned:
            order = next(iter(self._abandoned))
            del self._abandoned[order]
            if order not in others:
                return order
        return None


def _leaving(order: AddRoot) -> LeaveRoot:
    return LeaveRoot(order.root.key, order.root.tree, joining_only=True)
