"""The parts of the reference that are made from the code: `make docs` writes them."""

from pathlib import Path

from pydantic_core import PydanticUndefined

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
one of these, or the path of your own YAML file of the same form. `weight` is how much an event says
about interest; the model learns to predict items of positive events. An event whose value is out of
its range is refused.
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
        "| event type | positive | weight | item | value |",
        "|---|---|---|---|---|",
    ]
    for kind, rules in domain.event_types.items():
        value = rules.value
        told = f"{value.unit}, {value.min:g} to {value.max:g}" if value else ""
        needed = "needed" if rules.requires_item else "may lack"
        required = " (needed)" if value and value.required else ""
        lines.append(
            f"| `{kind}` | {'yes' if rules.positive else 'no'} | {rules.weight:g} | {needed} | "
            f"{told}{required} |"
        )
    return "\n".join([*lines, "", f"Funnel: {' → '.join(domain.funnel)}.", ""])


PAGES = {"settings.md": settings_page, "domains.md": domains_page}
"""File below docs/reference → what it holds."""


def write_pages(folder: Path) -> None:
    """Write every page into `folder`."""
    for name, page in PAGES.items():
        (folder / name).write_text(page())


if __name__ == "__main__":
    write_pages(_REPOSITORY / "docs" / "reference")
