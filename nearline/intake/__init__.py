"""The durable door between the API and the lake: journals of what came in, closed hour by hour."""

from nearline.intake.closing import close_hours, prune_journals
from nearline.intake.journal import Journal, Receipt

__all__ = ["Journal", "Receipt", "close_hours", "prune_journals"]
