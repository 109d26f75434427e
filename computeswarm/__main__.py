"""``python -m computeswarm`` is the command line."""

from computeswarm.cli.main import entry

entry()
