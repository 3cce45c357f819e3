"""Where the `nearline` command begins: before what only a part of all installations has."""


def main() -> None:
    """Run the command, or tell what to install for it."""
    try:
        from nearline.cli import main as command

        command()
    except ModuleNotFoundError as error:
        raise SystemExit(
            f"nearline: {error.name} is not installed. The client alone has no command; `pip "
            "install 'nearline[lookup]'` brings `nearline lookup`, and `make install` in the "
            "repository all of them"
        ) from error
