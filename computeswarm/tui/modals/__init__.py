"""Dialogs above a screen, each one question."""
