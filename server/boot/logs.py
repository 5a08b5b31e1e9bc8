"""Logging of the server's process: lines of text, or of JSON for a collector of logs. Set up before all else starts.

log_format text   progress on standard output as plain lines, the rest on standard error
log_format json   the same two streams, one object a line, and a line for each request (`server/api/http/request_id.py`)
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from incomes_server.settings import Settings

ENGINE_LOG = Path(__file__).parent / "engine_log.json"
"""vLLM's logging in JSON lines, in a form that vLLM's own processes read too (`VLLM_LOGGING_CONFIG_PATH`)."""

TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# Lines of the HTTP clients for each request, and of Alembic for each start, say nothing new.
NOISY = ("httpx", "httpcore", "uvicorn.error", "alembic")
PROGRESS, REQUESTS = "incomes.progress", "incomes.requests"


def set_up_logging(settings: Settings) -> None:
    """Set the root logger up, and with `log_format: json` the loggers of progress and of requests."""
    root = logging.StreamHandler()
    json_lines = settings.log_format == "json"
    if json_lines:
        from incomes_plugin.telemetry import JsonLines

        root.setFormatter(JsonLines())
        logging.captureWarnings(True)
        progress_lines = logging.StreamHandler(sys.stdout)
        progress_lines.setFormatter(JsonLines())
        logger = logging.getLogger(PROGRESS)
        logger.addHandler(progress_lines)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    else:
        root.setFormatter(logging.Formatter(TEXT))
    logging.basicConfig(level=settings.log_level.upper(), handlers=[root])
    logging.getLogger("incomes").setLevel(settings.log_level.upper())  # libraries may change the root logger's level
    logging.getLogger(REQUESTS).disabled = not json_lines
    for noisy in NOISY:
        logging.getLogger(noisy).setLevel(logging.WARNING)


def progress(line: str) -> None:
    """One step of a start or an end, as a JSON line on standard output."""
    logging.getLogger(PROGRESS).info("%s", line)
