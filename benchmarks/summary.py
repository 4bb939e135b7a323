"""From samples to results: medians, spread, ratios within a round, verdicts."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .catalogue import BestPeerTarget, OwnTarget, PeerTarget, Row
from .peers import FLOORS, OURS
from .runner import Samples


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Return the spread of `values`, of which there is at least one."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Result:
    """One row with the figures of every peer.

    Attributes:
        values: peer → its spread; peers without a value are missing.
        best: the peer with the lowest median, or that of the target; None without peers.
        ratio: ours divided by that peer's, round by round.
        met: whether our median reaches the target; None without a target or value.
    """

    row: Row
    values: dict[str, Spread]
    best: str | None
    ratio: Spread | None
    met: bool | None

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "title": self.row.title,
            "unit": self.row.unit,
            "values": {peer: asdict(spread) for peer, spread in self.values.items()},
            "best_peer": self.best,
            "ratio_to_best_peer": asdict(self.ratio) if self.ratio else None,
            "target": str(self.row.target) if self.row.target else None,
            "met": self.met,
        }


def round_values(row: Row, samples: Samples, peer: str) -> list[float | None]:
    """Return the row's value for `peer` in each round, None where it is missing."""
    values = [_value(sample, row.metric) for sample in samples.get(row.workload, {}).get(peer, [])]
    if row.per:
        divisors = [_value(sample, row.metric) for sample in samples.get(row.per, {}).get(peer, [])]
        return [
            None if value is None or not divisor else value / divisor
            for value, divisor in zip(values, divisors, strict=False)
        ]
    return [None if value is None else value / row.scale for value in values]


def summarise(row: Row, samples: Samples) -> Result:
    """Return the result of one row."""
    by_peer = {peer: round_values(row, samples, peer) for peer in samples.get(row.workload, {})}
    values = {
        peer: Spread.of(present)
        for peer, rounds in by_peer.items()
        if (present := [value for value in rounds if value is not None])
    }
    rivals = [peer for peer in values if peer not in FLOORS | {OURS}]
    # How much a peer's cost grows says nothing without the cost itself.
    best = None if row.per else min(rivals, key=lambda peer: values[peer].median, default=None)
    if isinstance(row.target, PeerTarget):
        best = row.target.peer if row.target.peer in values else None
    ratio = None
    if best is not None and OURS in values:
        # Both values of a round were taken next to each other, so that a
        # machine that slows down between rounds does not show in the ratio.
        ratios = [
            ours / theirs
            for ours, theirs in zip(by_peer[OURS], by_peer[best], strict=True)
            if ours is not None and theirs
        ]
        ratio = Spread.of(ratios) if ratios else None
    return Result(row, values, best, ratio, _met(row, values.get(OURS), ratio))


def _met(row: Row, ours: Spread | None, ratio: Spread | None) -> bool | None:
    match row.target:
        case BestPeerTarget(limit) | PeerTarget(limit=limit) if ratio is not None:
            return ratio.median <= limit
        case OwnTarget(limit) if ours is not None:
            return ours.median <= limit
    return None


def _value(sample: dict[str, float] | None, metric: str) -> float | None:
    return None if sample is None else sample.get(metric)
