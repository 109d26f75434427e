"""A PostgreSQL of a benchmark's own, in a temporary folder."""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def server() -> Iterator[str]:
    """Its URL, while it runs: the tests' server, so durable as Debian sets it up."""
    file = Path(__file__).parent.parent / "tests" / "postgres_server.py"
    spec = importlib.util.spec_from_file_location("postgres_server", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with tempfile.TemporaryDirectory(prefix="computeswarm-bench-") as folder:
        Path(folder).chmod(0o711)
        made = module.Postgres(Path(folder))
        made.make()
        made.start()
        try:
            yield made.url()
        finally:
            made.end()
