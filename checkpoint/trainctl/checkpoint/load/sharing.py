"""Loading by several ranks at once: what all of them want, and how they send to each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from trainctl.checkpoint.callbacks import nothing
from trainctl.checkpoint.exchange.port import Exchange
from trainctl.checkpoint.layout.layout import Layout
from trainctl.checkpoint.load.readers import Readers


@dataclass(frozen=True, slots=True)
class Sharing:
    """Given to a load by all ranks, each of which takes part to the end, also where it fails.

    Attributes:
        exchange: between them.
        wanted: by all of them, with the keys of this rank's state; holders are ``rank_holder``'s.
        check: called every few milliseconds; what it raises ends the load here.
    """

    exchange: Exchange
    wanted: Layout
    check: Callable[[], None] = nothing

    @property
    def readers(self) -> Readers:
        """Who reads what."""
        return Readers(self.wanted, self.exchange.rank, self.exchange.size)
