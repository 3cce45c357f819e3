"""`nearline serve`, `keys` and `lookup`. What is heavy is imported where it is used."""

import socket
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from nearline.console import JsonFlag, err, print_json, print_table
from nearline.errors import ConfigError
from nearline.settings import settings
from serving.addresses import service_url
from serving.keys import Key, KeyFile, Role
from serving.options import takes_list_options

if TYPE_CHECKING:
    from serving.client import RecommendationClient
    from serving.schema import ItemList, ListOptions, RankedItem

lookup = typer.Typer(help="Ask the API what it recommends.", no_args_is_help=True)
keys = typer.Typer(help="Say who may call the API.", no_args_is_help=True)

Url = Annotated[str | None, typer.Option(help="Where the API listens (default: the settings).")]


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address (default: NEARLINE_SERVE_HOST).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port (default: NEARLINE_SERVE_PORT); 0: any free one."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes (default: NEARLINE_SERVE_WORKERS).")
    ] = None,
) -> None:
    """Run the API until it is stopped. Without a release it answers 503 until one is promoted.

    Workers are processes that share the port: what one accepts changes the next answer of all.

    Example: nearline serve --port 8900 --workers 2
    """
    from nearline.experiments import Experiments
    from nearline.promotions import open_promotions
    from serving.hosts import is_loopback
    from serving.workers import Certificate, check_exposure, run

    config = settings()
    host = host or config.serve_host
    check_exposure(host, KeyFile.open().read(), config.oidc_issuer)
    Experiments.open()  # a wrong file is told here, not by every worker
    open_promotions()
    certificate = Certificate.of(config.tls_cert, config.tls_key)
    listener = _listen(host, config.serve_port if port is None else port)
    url = service_url(host, listener.getsockname()[1], tls=certificate is not None)
    err.print(f"Nearline API on {url}", highlight=False)
    run(
        listener,
        guarded=not is_loopback(host),
        workers=workers or config.serve_workers,
        certificate=certificate,
    )


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ConfigError for an address that cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, proto)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another "
            "with --host or --port"
        ) from error
    return listener


@keys.command("add", epilog="nearline keys add --role read --name shop --rate 200")
def add_key(
    role: Annotated[Role, typer.Option(help="What it may do: docs/how-to/guard-the-api.md.")],
    name: Annotated[str, typer.Option(help="Who will use it, as logs and refusals name it.")],
    rate: Annotated[
        float | None, typer.Option(help="Requests a second (default: NEARLINE_KEY_RATE).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Make a key and show it, once. Running servers take it within a second."""
    made, key = KeyFile.open().add(name=name, role=role, rate=rate, now=datetime.now(UTC))
    if as_json:
        print_json({"key": key} | _told(made))
    else:
        typer.echo(key)
        err.print(
            f"key {made.key_id} ({made.role}) of {escape(made.name)}: keep it now, it is not "
            "shown again",
            highlight=False,
        )


@keys.command("list", epilog="nearline keys list --json")
def list_keys(as_json: JsonFlag = False) -> None:
    """The keys that are let in, oldest first; what they are is kept as hashes only."""
    found = [_told(key) for key in KeyFile.open().read()]
    if as_json:
        print_json(found)
    else:
        rows = [[escape(str(cell)) if cell else None for cell in key.values()] for key in found]
        print_table("keys", ["id", "name", "role", "made", "rate"], rows)


@keys.command("revoke", epilog="nearline keys revoke 1f3a9c02b7de")
def revoke_key(key_id: Annotated[str, typer.Argument(metavar="ID")]) -> None:
    """Let a key in no more. Running servers refuse it within a second."""
    gone = KeyFile.open().revoke(key_id)
    err.print(f"revoked {gone.key_id} ({gone.role}) of {escape(gone.name)}", highlight=False)


def _told(key: Key) -> dict[str, Any]:
    return {
        "id": key.key_id,
        "name": key.name,
        "role": key.role,
        "made": key.created_ts.isoformat(timespec="seconds"),
        "rate": key.rate,
    }


@lookup.command("user", epilog="nearline lookup user 42 --category noir --explain")
@takes_list_options
def user(user_id: str, options: "ListOptions", url: Url = None, as_json: JsonFlag = False) -> None:
    """What a user would be recommended now."""
    with _client(url) as client:
        answer = client.recommendations(user_id=user_id, **options)
    _show(answer, f"user {user_id}", as_json)


@lookup.command("item", epilog="nearline lookup item 50")
@takes_list_options
def item(item_id: str, options: "ListOptions", url: Url = None, as_json: JsonFlag = False) -> None:
    """Items like an item."""
    with _client(url) as client:
        answer = client.similar(item_id=item_id, **options)
    _show(answer, f"item {item_id}", as_json)


@lookup.command("session", epilog="nearline lookup session 50 181 172")
@takes_list_options
def session(
    item_ids: Annotated[list[str], typer.Argument(metavar="ITEM...", help="Oldest first.")],
    options: "ListOptions",
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """What a visitor who touched these items would be recommended."""
    with _client(url) as client:
        answer = client.session(events=item_ids, **options)
    _show(answer, f"session {' '.join(item_ids)}", as_json)
    if not as_json:
        for ignored in answer.ignored:
            _note(f"ignored {ignored.item_id}: {ignored.reason}")


@lookup.command("search", epilog="nearline lookup search star wars --user 42")
@takes_list_options
def search(
    words: Annotated[list[str], typer.Argument(metavar="WORD...")],
    options: "ListOptions",
    user_id: Annotated[str | None, typer.Option("--user", help="Whose taste orders.")] = None,
    url: Url = None,
    as_json: JsonFlag = False,
) -> None:
    """Items by keywords of their titles, categories and texts."""
    with _client(url) as client:
        answer = client.search(words=" ".join(words), user_id=user_id, **options)
    _show(answer, " ".join(words), as_json)


@lookup.command("trending", epilog="nearline lookup trending --json")
@takes_list_options
def trending(options: "ListOptions", url: Url = None, as_json: JsonFlag = False) -> None:
    """What the whole site touches now."""
    with _client(url) as client:
        answer = client.trending(**options)
    _show(answer, "trending", as_json)


def _client(url: str | None) -> "RecommendationClient":
    from serving.client import RecommendationClient

    return RecommendationClient(base_url=url)


def _show(answer: "ItemList", title: str, as_json: bool) -> None:
    if as_json:
        print_json(answer.model_dump(mode="json"))
        return
    filling = answer.filled.items if answer.filled else 0
    rows = [
        (
            place,
            escape(found.item_id),
            escape(found.title or ""),
            f"{found.score:.4f}",
            found.source,
            *([_filling(found, place > len(answer.items) - filling)] if filling else []),
            *([escape(_because(found))] if found.why else []),
        )
        for place, found in enumerate(answer.items, 1)
    ]
    columns = ["", "item", "title", "score", "from"]
    columns += ["fills up"] if filling else []
    columns += ["because of"] if any(found.why for found in answer.items) else []
    print_table(escape(title), columns, rows)
    if answer.filled is not None:
        who = f"the last {answer.filled.items} fill" if filling else "nothing fills"
        _note(f"{who} up: {answer.filled.reason}")
    why = f" ({answer.reason})" if answer.reason else ""
    age = answer.state_age_seconds
    known = "" if age is None else f" · state {age:.0f} s old"
    _note(f"{answer.source}{why} · release {answer.release}{known}")


def _filling(found: "RankedItem", fills_up: bool) -> str:
    """What a list that was filled up says of an item; nothing of one that was asked for."""
    if not fills_up:
        return ""
    return "yes" if found.matches else "against the filters"


def _because(found: "RankedItem") -> str:
    """What the user did that is most like an item; empty for one that nothing is like."""
    ties = found.why.because[:1] if found.why else []
    return "".join(f"{t.event_type} {t.title or t.item_id} ({t.similarity:.2f})" for t in ties)


def _note(text: str) -> None:
    err.print(text, highlight=False, markup=False)
