"""Settings of all tests of the executor, which need nothing but this package and its extra `test`."""

from hypothesis import settings

# No deadline: on a shared machine a slow example says nothing about the code.
settings.register_profile("executor", deadline=None, derandomize=True)
settings.load_profile("executor")
