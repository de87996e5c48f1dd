"""The commands: `python -m entry_points.NAME`, each a thin click command over `tvae`."""

import os

from tvae.tracking.environment import drop_blank

# MLflow reads some as it is imported.
drop_blank()

# A thread of torch that waits for work spins for a while before it sleeps. For as long as OpenMP has it by default, it
# takes the processor from those that have work on a busy machine; without any spinning, small operations wait for
# threads to wake, and training on a quiet machine takes twice as long. Read as torch is imported.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
