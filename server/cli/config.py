"""`incomes config show`: every setting, its value and where it comes from."""

from __future__ import annotations

import typer
from incomes_server.cli.output import JsonFlag, print_json, print_table
from incomes_server.cli.serve import ConfigOption

app = typer.Typer(help="Look at the settings.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Look at the settings."""


@app.command()
def show(config: ConfigOption = None, as_json: JsonFlag = False) -> None:
    """Print the effective settings with their origin: env, file or default. Keys are not shown."""
    from incomes_server.settings import load_settings

    loaded = load_settings(config)
    rows = [(name, _shown(name, getattr(loaded.settings, name)), loaded.origins[name]) for name in loaded.origins]
    if as_json:
        return print_json({name: {"value": value, "origin": origin} for name, value, origin in rows})
    print_table(("setting", "value", "origin"), rows)


def _shown(name: str, value: object) -> object:
    """Secrets masked."""
    if name in {"api_keys", "encryption_key"}:
        return ", ".join(str(key) for key in value) if isinstance(value, tuple) else ""
    if name == "ray_token":
        return "****" if value else value
    if name == "gist_storage":
        from incomes_server.settings import without_password

        return without_password(str(value)) if value else value
    if name == "edit_store":
        from sqlalchemy.engine import make_url

        return make_url(str(value)).render_as_string(hide_password=True)
    return value
