"""Engines that only compress, as many as the queue needs: a Ray Serve deployment without an address.

Serve's controller ─ every few seconds: how deep is the queue? ─► starts or ends replicas, each an `incomes compress`

`serve run incomes_server.boot.compressors:build config=/etc/incomes.yaml max_compressors=4`, or `importPath` of a
RayService. Needs `ray[serve]`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import Any

from incomes_server.boot.child import Child, Where, free_port
from pydantic import Field

from incomes_plugin.errors import IncomesError, NotReady

logger = logging.getLogger("incomes.endpoint")

ASK_EVERY_S = 2.0
ANSWER_WITHIN_S = 10.0


class CompressorArgs(Where):
    """What `build` takes.

    Attributes:
        min_compressors, max_compressors: bounds of their number.
        edits_a_compressor: edits that wait or are compressed for each; more start another, fewer end one.
        idle_s: how long there is less work before one is ended.
        namespace: `ray_namespace` of the settings.
    """

    min_compressors: int = Field(0, ge=0)
    max_compressors: int = Field(1, ge=1)
    edits_a_compressor: int = Field(512, ge=1)
    idle_s: float = Field(300.0, ge=0)
    namespace: str = "incomes"


class QueueDepth:
    """Serve's policy: so many replicas that each has its share of the queue. Serve keeps the bounds and the delays.

    It is called in the loop of Serve's controller, so the queue is asked beside it, and the last answer counts.
    """

    def __init__(self, namespace: str, edits_a_compressor: int) -> None:
        self.namespace, self.share = namespace, edits_a_compressor
        self.depth, self.asked_s = 0, -math.inf
        self.asking: asyncio.Task[None] | None = None

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """How many there should be."""
        now_s = time.monotonic()
        if (self.asking is None or self.asking.done()) and now_s - self.asked_s >= ASK_EVERY_S:
            self.asked_s, self.asking = now_s, asyncio.get_running_loop().create_task(self.ask())
        return math.ceil(self.depth / self.share), {}

    async def ask(self) -> None:
        """Ask the queue. What is out of reach stays as it was: its workers are not ended for that."""
        try:
            self.depth = await asyncio.wait_for(_depth(self.namespace), ANSWER_WITHIN_S)
        except (IncomesError, TimeoutError) as error:
            logger.warning("the compression queue does not answer: %s", error)


async def _depth(namespace: str) -> int:
    """Edits that wait or are compressed; none before a server has started the queue."""
    from incomes_server.compression.client import ACTOR_NAME
    from incomes_server.store.ray_call import call, find_actor

    try:
        actor = await asyncio.to_thread(find_actor, ACTOR_NAME, namespace)
    except NotReady:
        return 0
    stats = await call(actor.stats.remote())
    return int(stats.interactive + stats.bulk + stats.leased)


def build(args: dict[str, Any]) -> Any:
    """The application, as Serve's configuration names it."""
    from ray import serve
    from ray.serve.config import AutoscalingConfig, AutoscalingPolicy

    how = CompressorArgs.model_validate(args)
    kwargs = {"namespace": how.namespace, "edits_a_compressor": how.edits_a_compressor}

    @serve.deployment(
        name="compressor",
        autoscaling_config=AutoscalingConfig(
            min_replicas=how.min_compressors,
            max_replicas=how.max_compressors,
            upscale_delay_s=2 * ASK_EVERY_S,
            downscale_delay_s=how.idle_s,
            policy=AutoscalingPolicy(policy_function=QueueDepth, policy_kwargs=kwargs),
        ),
        health_check_period_s=1,
        graceful_shutdown_timeout_s=how.drain_s + 20,
        ray_actor_options=how.actor_options,
    )
    class Compressor:
        """A replica, there as soon as its process is: one that waits for the model holds up nobody."""

        def __init__(self, how: dict[str, Any]) -> None:
            self.child, self.how = Child(), CompressorArgs.model_validate(how)
            self.child.start("compress", self.how.config, ["--admin-port", str(free_port())], self.how.flags)
            self.child.log_lines()

        def check_health(self) -> None:
            """Asked by Serve's controller; a replica whose process is lost is replaced."""
            if self.child.is_gone:
                raise NotReady("the compressor has ended; its log says why")

        def __del__(self) -> None:
            self.child.stop(self.how.drain_s)

    deployed: Any = Compressor
    return deployed.bind(how.model_dump())
