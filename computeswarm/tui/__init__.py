"""The terminal app. Empty on purpose: ``tui.run.run_tui`` is the way in, and imports on demand."""
