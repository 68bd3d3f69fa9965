"""`python -m jaxflow`: the command line, where its script is not on the path."""

import sys

from jaxflow.cli import main

sys.exit(main())
