"""`python -m jaxflow`: the command line, where its script is not on the path."""

import sys

try:
    from jaxflow.cli import main

    status = main()
except KeyboardInterrupt:  # Ctrl-C while the command line itself is imported
    status = 130
sys.exit(status)
