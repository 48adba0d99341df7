"""How hypothesis looks for examples: `HYPOTHESIS_PROFILE` names a profile."""

import os

from hypothesis import settings

# The same examples in every run, so that a change that breaks something is what made the tests fail.
settings.register_profile("steady", deadline=None, derandomize=True)
# Other examples in every run, to find what the steady ones never will; a failure is printed so as to be repeated.
settings.register_profile("fresh", deadline=None, derandomize=False, print_blob=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
