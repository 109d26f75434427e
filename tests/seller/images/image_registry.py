"""A small registry on 127.0.0.1 that speaks as much of the distribution API as a pull needs."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import platform
import secrets
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from computeswarm.seller.images import host_python
from computeswarm.seller.images.root import write_root

_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_CONFIG = "application/vnd.docker.container.image.v1+json"
_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}
_CHUNK = 2**20
_DRIP_SECONDS = 0.02


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def layer(files: dict[str, bytes]) -> bytes:
    """A tar archive."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


def python_layer() -> bytes:
    """This machine's Python."""
    image, made = host_python(), io.BytesIO()
    write_root(made, image.python, image.prefix)
    return made.getvalue()


@dataclass
class Registry:
    """Blobs by digest, and how they are served."""

    host: str = ""
    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: dict[str, bytes] = field(default_factory=dict)
    pace: float = 0.0
    """Seconds for each MiB."""
    go: asyncio.Event = field(default_factory=asyncio.Event)
    """Without it, more than half of a blob takes for ever."""
    served: list[str] = field(default_factory=list)
    """Digests of the blobs that were asked for."""
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """A client went away in the middle of a blob."""

    def put(self, *layers: bytes) -> str:
        """An image; its ``repository@digest``. A layer of its own makes it one never seen."""
        layers = (layer({"only-here": secrets.token_bytes(16)}), *layers)
        config = {
            "architecture": _ARCHITECTURE.get(platform.machine(), platform.machine()),
            "os": "linux",
            "config": {"Env": [f"PATH={host_python().python.parent}:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(each) for each in layers]},
            "history": [{"created_by": "a test"} for _ in layers],
        }
        facts = json.dumps(config).encode()
        for blob in (facts, *layers):
            self.blobs[digest(blob)] = blob
        manifest: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": {"mediaType": _CONFIG, "size": len(facts), "digest": digest(facts)},
            "layers": [
                {"mediaType": _LAYER, "size": len(each), "digest": digest(each)} for each in layers
            ],
        }
        text = json.dumps(manifest).encode()
        self.manifests[digest(text)] = text
        return f"{self.host}/theirs@{digest(text)}"

    async def hello(self, _: web.Request) -> web.Response:
        return web.json_response({})

    async def manifest(self, request: web.Request) -> web.Response:
        text = self.manifests.get(request.match_info["digest"])
        if text is None:
            evil = "manifest unknown\x1b[31m\x00"
            errors = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": evil}]}
            return web.json_response(errors, status=404)
        return web.Response(body=text, content_type=_MANIFEST)

    async def blob(self, request: web.Request) -> web.StreamResponse:
        data = self.blobs[request.match_info["digest"]]
        self.served.append(request.match_info["digest"])
        reply = web.StreamResponse(headers={"Content-Length": str(len(data))})
        await reply.prepare(request)
        at = 0
        try:
            while at < len(data):
                # a byte now and then is how one sees that the other side has gone
                held = at >= len(data) // 2 and len(data) > _CHUNK and not self.go.is_set()
                size = 1 if held else _CHUNK
                await reply.write(data[at : at + size])
                at += size
                await asyncio.sleep(_DRIP_SECONDS if held else self.pace)
        except (ConnectionError, asyncio.CancelledError):
            self.left.set()
            raise
        return reply


@asynccontextmanager
async def serving() -> AsyncIterator[Registry]:
    """One that serves until the end of the block."""
    made = Registry()
    made.go.set()
    app = web.Application()
    app.router.add_get("/v2/", made.hello)
    app.router.add_get("/v2/theirs/manifests/{digest}", made.manifest)
    app.router.add_get("/v2/theirs/blobs/{digest}", made.blob)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        made.host = f"127.0.0.1:{runner.addresses[0][1]}"
        yield made
    finally:
        made.go.set()
        await runner.cleanup()
