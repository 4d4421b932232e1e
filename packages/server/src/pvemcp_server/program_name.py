"""The name of this program, for texts that say what to type."""

import shutil
import sys


def this_command() -> str:
    """Return this command as a shell finds it: in a virtual environment it is on no path."""
    return "pvemcp" if shutil.which("pvemcp") else sys.argv[0]
