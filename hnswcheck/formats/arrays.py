"""The arrays that the readers hand on, by what they hold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

Bytes = NDArray[np.uint8]

Ints = NDArray[np.int64]

Hashes = NDArray[np.uint64]

Flags = NDArray[np.bool_]

Labels = NDArray[np.uint64]

Words = NDArray[np.uint32]
