"""`owned_reads`, compiled if that was built, else as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cache.accelerator import choose

CHOICE: Final = choose("cache.cluster.replication.owned_reads")

accelerated: Final = CHOICE.is_compiled
"""Whether reads of owned keys run compiled."""

if TYPE_CHECKING:
    from cache.cluster.replication.owned_reads import Counts, OwnedReads, Validity
else:
    Counts, OwnedReads, Validity = (
        CHOICE.module.Counts,
        CHOICE.module.OwnedReads,
        CHOICE.module.Validity,
    )

__all__ = ["CHOICE", "Counts", "OwnedReads", "Validity", "accelerated"]
