"""`python -m ucjax` is the command `ucjax`."""

import sys

from ucjax.cli.command import main

sys.exit(main())
