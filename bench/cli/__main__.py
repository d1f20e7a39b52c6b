"""`python -m bench.cli`, where the command `bench` is not on the path."""

import sys

from . import main

sys.exit(main())
