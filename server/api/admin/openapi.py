"""Prints the admin API's OpenAPI description: `python -m incomes_server.api.admin.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys

from incomes_server.api.admin.app import build_admin_app
from incomes_server.api.http.readiness import Readiness
from incomes_server.settings import Settings


def render() -> str:
    """The description as it is committed."""
    app = build_admin_app(None, Settings(), Readiness())
    return json.dumps(app.openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
