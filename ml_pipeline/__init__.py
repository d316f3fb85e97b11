"""From tables to numbers: reading, cleaning, features, training and prediction of 30-day customer spend."""

import os

# Threads that wait by spinning make a fit many times slower whenever a core is busy with something else. OpenMP reads
# this once, when the first library that brings it is loaded: hence here, before anything else of this package.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
