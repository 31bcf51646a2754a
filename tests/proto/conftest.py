"""Property tests search for examples, never for slow ones: a loaded machine must not fail them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("modelmeter", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("modelmeter")
