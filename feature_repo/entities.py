"""Who features are about."""

from feast import Entity, ValueType

user = Entity(
    name="user",
    join_keys=["user_id"],
    value_type=ValueType.STRING,
    description="A visitor of the site, known by the site's own id.",
)

item = Entity(
    name="item",
    join_keys=["item_id"],
    value_type=ValueType.STRING,
    description="Something that can be recommended, known by the site's own id.",
)

surface = Entity(
    name="surface",
    join_keys=["surface"],
    value_type=ValueType.STRING,
    description="A place where recommendations are shown; `all` is the whole site.",
)
