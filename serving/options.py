"""How a list is wanted, as flags of a command."""

from collections.abc import Callable, Iterator
from functools import wraps
from inspect import Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nearline.errors import BadInput

if TYPE_CHECKING:
    from serving.schema import ListOptions

_Many = list[str] | None


def list_options(
    limit: Annotated[int, typer.Option(min=1, max=200, help="Most items in the answer.")] = 10,
    category: Annotated[_Many, typer.Option(help="Of this category; may be given again.")] = None,
    price_min: Annotated[float | None, typer.Option(help="Of no lower price.")] = None,
    price_max: Annotated[float | None, typer.Option(help="Of no higher price.")] = None,
    attribute: Annotated[
        _Many, typer.Option(help="NAME:VALUE, as in color:red; again too.")
    ] = None,
    exclude: Annotated[_Many, typer.Option(help="An item to leave out; again too.")] = None,
    surface: Annotated[str | None, typer.Option(help="Where the list would be shown.")] = None,
    context: Annotated[
        _Many, typer.Option(help="NAME:VALUE around the list, as in item_id:50; again too.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why each item is there.")] = False,
    fill: Annotated[bool, typer.Option(help="Fill up a list that filters left too short.")] = True,
    log: Annotated[bool, typer.Option(help="Log the list as one that its user was shown.")] = False,
) -> "ListOptions":
    """The options of the client that flags stand for. Raises BadInput for a pair that is none."""
    attributes: dict[str, list[str]] = {}
    for name, value in _pairs("attribute", attribute):
        attributes.setdefault(name, []).append(value)
    options: ListOptions = {"limit": limit, "explain": explain, "fill": fill, "log": log}
    if price_min is not None:
        options["price_min"] = price_min
    if price_max is not None:
        options["price_max"] = price_max
    if surface is not None:
        options["surface"] = surface
    return options | {
        "categories": category or [],
        "attributes": attributes,
        "exclude": exclude or [],
        "context": dict(_pairs("context", context)),
    }


def _pairs(flag: str, given: _Many) -> Iterator[tuple[str, str]]:
    for pair in given or ():
        name, colon, value = pair.partition(":")
        if not name or not colon:
            raise BadInput(f"--{flag} {pair}: write it as NAME:VALUE, as in color:red")
        yield name, value


def takes_list_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the flags of `list_options`, which get to it as `options`."""
    flags = list(signature(list_options).parameters.values())
    own = [each for each in signature(command).parameters.values() if each.name != "options"]

    @wraps(command)
    def run(**given: Any) -> None:
        command(
            options=list_options(**{each.name: given.pop(each.name) for each in flags}), **given
        )

    parameters = [each.replace(kind=each.KEYWORD_ONLY) for each in (*own, *flags)]
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {each.name: each.annotation for each in parameters}
    return run
