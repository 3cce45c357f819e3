"""What a caller wants the items to be: categories, a range of prices, values of attributes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.catalogue import Entry


@dataclass(frozen=True)
class Filters:
    """Every part that is given must hold; of the values given for one part, any may.

    `attributes` pairs a name with the texts that its value may be (`as_texts`).
    """

    categories: frozenset[str] = frozenset()
    price_min: float | None = None
    price_max: float | None = None
    attributes: frozenset[tuple[str, frozenset[str]]] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.categories or self.attributes) or self.priced

    @property
    def priced(self) -> bool:
        """Whether prices are bounded."""
        return self.price_min is not None or self.price_max is not None

    def match(self, entry: "Entry") -> bool:
        """Whether an item is what is wanted. An item without a price is in no range of prices."""
        if self.categories and self.categories.isdisjoint(entry.categories):
            return False
        if self.priced and not self._affords(entry.price):
            return False
        return all(
            not wanted.isdisjoint(as_texts(entry.attributes.get(name)))
            for name, wanted in self.attributes
        )

    def _affords(self, price: float | None) -> bool:
        return (
            price is not None
            and (self.price_min is None or self.price_min <= price)
            and (self.price_max is None or price <= self.price_max)
        )


ANY = Filters()
"""Whatever there is."""


def as_texts(value: Any) -> list[str]:
    """The texts by which a caller may ask for an attribute's value; of a list, each element's.

    A text is itself, anything else its JSON: `true`, `3`, `2.5`. Nothing is asked for by no text.
    """
    if value is None or isinstance(value, Mapping):
        return []
    if isinstance(value, list):
        return [text for element in value for text in as_texts(element)]
    return [value if isinstance(value, str) else json.dumps(value)]
