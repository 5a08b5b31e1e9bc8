"""Loaded by the server under test (PYTHONPATH): its event loop is asyncio's, with the slow-callback log at 20 ms.

asyncio measures the clock, and on a busy machine a callback waits for its turn: the log gets the processor time of the
loop's thread as well. Ray's and the engine's processes are left as they are.
"""

import asyncio
import logging
import sys
import time
from typing import Any

LIMIT_S = 0.02


class WatchedLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        super().__init__()
        self.set_debug(True)
        self.slow_callback_duration = LIMIT_S


def measure_handles() -> None:
    handle_class: Any = asyncio.Handle
    run, spent = handle_class._run, [0.0]

    def measured(handle: asyncio.Handle) -> Any:
        start_s = time.thread_time()
        try:
            return run(handle)
        finally:
            spent[0] = time.thread_time() - start_s

    def with_processor_time(record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("Executing"):
            record.msg = f"{record.msg}, of the processor {spent[0]:.3f}"
        return True

    handle_class._run = measured
    logging.getLogger("asyncio").addFilter(with_processor_time)


if "serve" in sys.orig_argv:
    import uvloop

    uvloop.new_event_loop = WatchedLoop  # type: ignore[assignment]
    measure_handles()
