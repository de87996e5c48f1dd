"""The arrays that signatures name."""

import numpy as np
import numpy.typing as npt

__all__ = ["Bools", "Floats", "Ints", "Trits"]

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Trits = npt.NDArray[np.int8]
"""Values -1, 0 and 1."""
