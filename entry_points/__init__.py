"""The commands: `python -m entry_points.NAME`, each a thin click command over `tvae`."""

import os

# Threads of torch that wait for work by spinning take the processor from those that have some: on a busy machine an
# evaluation took 4 times as long. Read by the OpenMP runtime when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
