import click


@click.command("fetch")
def command() -> None:
    """Placeholder."""
