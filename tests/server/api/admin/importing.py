"""`python -m tests.server.api.admin.importing DATABASE MODEL`: a server that imports, until it is killed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from tests.server.local import local_server


async def main(database_url: str, model: Path) -> None:
    """Run the server's parts for ever."""
    async with local_server(database_url, model):
        sys.stdout.write("running\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
