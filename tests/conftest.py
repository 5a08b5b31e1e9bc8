"""For every test: what must be settled before the first import of Ray (vLLM imports it), and one hypothesis profile."""

from __future__ import annotations

import hypothesis
from incomes_server.boot.ray_local import prepare_ray_environment

prepare_ray_environment()

hypothesis.settings.register_profile("shared-machine", deadline=None)
hypothesis.settings.load_profile("shared-machine")
