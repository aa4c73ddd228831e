"""Settings of every test: what holds on a shared, noisy machine too."""

from hypothesis import HealthCheck, settings

# Both measure the machine, not the code: a stalled core fails a property that holds.
settings.register_profile("kestrel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kestrel")
