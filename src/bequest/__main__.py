"""`python -m bequest`: hands the command line to `bequest.cli` and ends with the status that it returns.

    sys.argv -> cli.main -> exit status

A program that `run` has brought to its end leaves here by falling off the end, as a script does.
"""

import sys

from bequest.cli import main

if __name__ == "__main__" and (status := main()):
    sys.exit(status)
