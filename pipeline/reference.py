"""The parts of the reference that are made from the code: `make docs` writes them."""

from pathlib import Path

from feast import FeatureService, FeatureView
from pydantic_core import PydanticUndefined

from feature_repo.services import ranking_v1, serving_v1
from feature_repo.views import VIEWS
from nearline.domains import BUILT_IN, load_domain
from nearline.settings import Settings

_REPOSITORY = Path(__file__).parents[1]
_SETTINGS = """# Settings

Each is a variable of the environment, or a line of `.env` in the folder that a command runs in.
All are checked when a command starts; a wrong one is named, with what is allowed.

| variable | default | meaning |
|---|---|---|
"""
_DOMAINS = """# Domains

A domain file says which types of events a site has and what they are worth. `NEARLINE_DOMAIN` names
one of these, or the path of your own YAML file of the same form. An event whose value is out of its
range is refused.

`weight` is how much an event says about interest: features and trends count it. In training it
plays no part, but that the model does not read events of weight 0. It reads all others, and learns
to foresee, and is measured on, a user's **first touch** of an item, where a positive event makes
it: of an item that is viewed and bought later the view is foreseen, the purchase only read.

`hides` says whether the user is shown the item again: `always`, not for 365 days (of a user's
newest 1,000 such items); `recently`, the default, not while the event is among the user's newest
`NEARLINE_SEQUENCE_LENGTH`; `never`, at once.
"""
_FEATURES = """# Features

What Feast knows, view by view. A row of time T is made of events before T alone, and the newest row
before the moment of asking is what is answered, for as long as it holds; after that, nothing is.
Counts include late events once these have arrived.
"""


def settings_page() -> str:
    """Every setting, as a page."""
    rows = [
        f"| `NEARLINE_{name.upper()}` | {_shown(field.default)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return _SETTINGS + "\n".join(rows) + "\n"


def _shown(default: object) -> str:
    if isinstance(default, Path) and default.is_absolute():
        default = default.relative_to(_REPOSITORY)
    unset = default is PydanticUndefined or default in ("", Path())
    return "" if unset else f"`{default}`"


def domains_page() -> str:
    """The built-in domains, as a page."""
    return _DOMAINS + "".join(_domain(name) for name in BUILT_IN)


def _domain(name: str) -> str:
    domain = load_domain(name)
    lines = [
        f"\n## {name}\n",
        "| event type | positive | weight | hides | item | value |",
        "|---|---|---|---|---|---|",
    ]
    for kind, rules in domain.event_types.items():
        value = rules.value
        told = f"{value.unit}, {value.min:g} to {value.max:g}" if value else ""
        needed = "needed" if rules.requires_item else "may lack"
        required = " (needed)" if value and value.required else ""
        lines.append(
            f"| `{kind}` | {'yes' if rules.positive else 'no'} | {rules.weight:g} | "
            f"{rules.hides} | {needed} | {told}{required} |"
        )
    return "\n".join([*lines, "", f"Funnel: {' → '.join(domain.funnel)}.", ""])


def features_page() -> str:
    """Every feature view, as a page."""
    return _FEATURES + "".join(_view(view) for view in VIEWS)


def _view(view: FeatureView) -> str:
    keys = ", ".join(f"`{key}`" for key in view.join_keys)
    assert view.ttl is not None, "every view says how long it holds"
    readers = [f"`{each.name}`" for each in (serving_v1, ranking_v1) if _reads(each, view)]
    asked = f" Asked for by {' and '.join(readers)}." if readers else ""
    lines = [
        f"\n## {view.name}\n",
        f"{view.description} By {keys}; a row holds for {view.ttl.days} days.{asked}\n",
        "| feature | type | meaning |",
        "|---|---|---|",
        *(f"| `{field.name}` | {field.dtype} | {field.description} |" for field in view.features),
    ]
    return "\n".join([*lines, ""])


def _reads(service: FeatureService, view: FeatureView) -> bool:
    return view.name in {each.name for each in service.feature_view_projections}


PAGES = {"features.md": features_page, "settings.md": settings_page, "domains.md": domains_page}
"""File below docs/reference → what it holds."""


def write_pages(folder: Path) -> None:
    """Write every page into `folder`."""
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    write_pages(_REPOSITORY / "docs" / "reference")
