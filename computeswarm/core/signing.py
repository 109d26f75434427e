"""Signed statements: a document, the wallet that signed it, and how anyone checks it.

A statement is canonical JSON (keys sorted, no spaces, no floats) under an EIP-712 digest, so it is
self-contained: whoever holds it can verify it without asking anybody.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from computeswarm.core.crypto import PrivateKey, recover_address, same_address
from computeswarm.core.eip712 import statement_digest
from computeswarm.core.errors import BadRequest, Unauthorized
from computeswarm.core.text import clean_line

HexSignature = Annotated[str, Field(pattern=r"^0x[0-9a-f]{130}$")]
ModelT = TypeVar("ModelT", bound="Document")


class Document(BaseModel):
    """Base of what gets signed or travels: frozen, unknown members ignored, integers not floats."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def canonical_json(value: Any) -> bytes:
    """The one spelling of a JSON value that is hashed and signed.

    Raises:
        ValueError: the value holds a float, whose spelling differs between languages.
    """
    _refuse_floats(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode("utf-8", "surrogatepass")


def _refuse_floats(value: Any) -> None:
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, float):
            raise ValueError("signed documents hold integers and text, no floats")  # noqa: TRY004
        if isinstance(item, dict):
            stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)


class Signed(Document):
    """A document with its signature.

    ``kind`` names what the document is (``node-record``, ``quote``, ``job-submission``) and is part
    of what is signed. The raw document is kept as it came, so members added by a later version stay
    under the signature.
    """

    kind: str = Field(max_length=40)
    chain_id: int = Field(ge=1, lt=2**53)
    document: dict[str, Any]
    signature: HexSignature

    @classmethod
    def make(cls, key: PrivateKey, kind: str, chain_id: int, document: Document) -> Self:
        """Sign a document with a wallet's key."""
        raw = document.model_dump(mode="json")
        signature = key.sign_digest(statement_digest(chain_id, kind, canonical_json(raw)))
        return cls(kind=kind, chain_id=chain_id, document=raw, signature="0x" + signature.hex())

    def digest(self) -> bytes:
        """The 32 bytes that were signed; they name this very statement.

        Raises:
            Unauthorized: a document that nobody could have signed.
        """
        try:
            content = canonical_json(self.document)
        except (ValueError, RecursionError) as error:
            raise Unauthorized(f"The signed {clean_line(self.kind)} can't be read.") from error
        return statement_digest(self.chain_id, self.kind, content)

    def signer(self) -> str:
        """The checksummed address that signed.

        Raises:
            Unauthorized: no address could have made this signature.
        """
        address = recover_address(self.digest(), bytes.fromhex(self.signature[2:]))
        if address is None:
            raise Unauthorized(f"The signature of the {clean_line(self.kind)} is not valid.")
        return address

    def open(self, kind: str, model: type[ModelT], *, wallet: str | None = None) -> ModelT:
        """The typed document, once kind and signature are checked.

        Args:
            kind: the kind that is expected.
            model: what the document is parsed as.
            wallet: who must have signed it.

        Raises:
            BadRequest: another kind, or a document that is not a ``model``.
            Unauthorized: signed by nobody, or by another wallet.
        """
        if self.kind != kind:
            raise BadRequest(f"Expected a signed {kind}, got a {clean_line(self.kind)}.")
        signer = self.signer()
        if wallet is not None and not same_address(signer, wallet):
            named = clean_line(wallet, limit=42)
            raise Unauthorized(f"The {kind} was signed by {signer}, not by {named}.")
        return parse(model, self.document)


def parse(model: type[ModelT], value: Any) -> ModelT:
    """Validate a stranger's JSON value.

    Raises:
        BadRequest: names the member that is wrong; never repeats the whole input.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise BadRequest(describe_validation(error)) from None


def parse_json(model: type[ModelT], data: bytes | str) -> ModelT:
    """Validate a stranger's JSON text.

    Raises:
        BadRequest: not JSON, or not a ``model``.
    """
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise BadRequest(describe_validation(error)) from None


def describe_validation(error: ValidationError) -> str:
    """One sentence for the first thing that is wrong."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return clean_line(f"{where}: {first['msg']}{more}.", limit=400)
