"""`python -m gte_np` is `gte-np`."""

import sys

from gte_np.cli import main

sys.exit(main())
