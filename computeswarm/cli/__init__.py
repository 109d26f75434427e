"""The command line: a thin skin; each command and its heavy imports load only when asked for."""
