"""The durable door between the API and the lake: journals of what came in, closed hour by hour."""

from nearline.intake.accepted import Accepted, accepted_events
from nearline.intake.closing import close_hours, closed_early, prune_journals
from nearline.intake.following import Follower
from nearline.intake.forgotten import Forgotten
from nearline.intake.impressions import Impression, ImpressionLog
from nearline.intake.items import (
    ItemJournal,
    ItemReceipt,
    item_of,
    merged_until,
    put_alone,
    put_rows,
)
from nearline.intake.journal import Journal, Receipt

__all__ = [
    "Accepted",
    "Follower",
    "Forgotten",
    "Impression",
    "ImpressionLog",
    "ItemJournal",
    "ItemReceipt",
    "Journal",
    "Receipt",
    "accepted_events",
    "close_hours",
    "closed_early",
    "item_of",
    "merged_until",
    "prune_journals",
    "put_alone",
    "put_rows",
]
