"""A PostgreSQL of a benchmark's own, in a temporary folder."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path


@contextmanager
def server() -> Iterator[str]:
    """Its URL, while it runs: the tests' server, so durable as Debian sets it up."""
    tests = str(Path(__file__).parent.parent / "tests")
    if tests not in sys.path:
        sys.path.append(tests)
    module = import_module("postgres_server")
    with tempfile.TemporaryDirectory(prefix="computeswarm-bench-") as folder:
        Path(folder).chmod(0o711)
        made = module.Postgres(Path(folder))
        made.make()
        made.start()
        try:
            yield made.url()
        finally:
            made.end()
