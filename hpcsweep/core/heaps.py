"""Heaps as `heapq` keeps them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

T = TypeVar("T", bound=tuple[Any, ...])


def in_order(heap: Sequence[T]) -> Iterator[T]:
    """Its items, smallest first; it stays as it is. The first `k` cost `k log k`, however many there are."""
    reached = [(heap[0], 0)] if heap else []
    while reached:
        item, at = heapq.heappop(reached)
        yield item
        for child in (2 * at + 1, 2 * at + 2):
            if child < len(heap):
                heapq.heappush(reached, (heap[child], child))
