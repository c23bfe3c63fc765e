"""Whose word it is: JSON Web Signatures (RFC 7515) in compact form, by ES256 or RS256, with configured keys."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from rapid.config.mqtt import MqttKeyTable
from rapid.core.errors import ConfigInvalid, RapidError
from rapid.tls import copy_of

RSA_LEAST_BITS = 2048
ES256, RS256 = "ES256", "RS256"
_R_CHARACTERS = 42  # of base64url, within the 32 bytes of r
_HEADERS = {"alg", "kid", "typ", "cty"}  # what else a header may ask for, we do not do


class BadSignature(RapidError):
    """Nobody's word: the message says why, in a line."""


@dataclass(frozen=True, slots=True)
class Key:
    """A public key, the one algorithm that it is for, and who signs with it."""

    source: str
    algorithm: str
    public: ec.EllipticCurvePublicKey | rsa.RSAPublicKey


class KeyRing:
    """Public keys by their kid."""

    def __init__(self, keys: Iterable[MqttKeyTable] = ()) -> None:
        """Raises ConfigInvalid for a file that holds no such key."""
        self._keys = {key.kid: _public(key) for key in keys}
        self._jws = jwt.PyJWS()

    @property
    def sources(self) -> set[str]:
        """Who may sign."""
        return {key.source for key in self._keys.values()}

    def fingerprint(self, token: str) -> str:
        """Of a token that was read: another for whatever was signed another time.

        Of an ECDSA signature only the first half counts: from (r, s) anybody can make (r, -s), as good as the first.
        Of an RSA signature (PKCS #1 v1.5) nothing does: the same words have the same one, however it is spelt.
        """
        signed, _, signature = token.rpartition(".")
        key = self._keys[str(self._jws.get_unverified_header(token)["kid"])]
        counts = "" if key.algorithm == RS256 else signature[:_R_CHARACTERS]
        return hashlib.sha256(f"{signed}.{counts}".encode()).hexdigest()[:32]

    def read(self, token: str) -> tuple[bytes, str]:
        """What was signed, and by whom. Raises BadSignature."""
        try:
            header = self._jws.get_unverified_header(token)
        except jwt.InvalidTokenError as error:
            raise BadSignature(f"is no JWS in compact form ({error})") from error
        more = set(header) - _HEADERS
        if more:
            raise BadSignature(f"has header {min(more)[:40]!r}, which is not understood")
        key = self._keys.get(str(header.get("kid", "")))
        if key is None:
            raise BadSignature("is signed with a key that is not configured (its kid)")
        if header.get("alg") != key.algorithm:
            raise BadSignature(f"is not signed by {key.algorithm}, which its key is for")
        try:
            payload = self._jws.decode(token, key.public, algorithms=[key.algorithm])
        except jwt.InvalidTokenError as error:
            raise BadSignature("has a signature that is not of its key") from error
        assert isinstance(payload, bytes)
        return payload, key.source


class Signer:
    """Signs what we say to others."""

    def __init__(self, path: Path, kid: str) -> None:
        """Raises ConfigInvalid for a file that holds no private key that we can use."""
        where = "mqtt.dsx.key"
        try:
            key = load_pem_private_key(_read(path, where), None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigInvalid(where, f"{path} holds no unencrypted private key in PEM form") from error
        if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
            raise ConfigInvalid(where, f"{path} is neither an EC nor an RSA key")
        self._key, self._kid, self._algorithm = key, kid, _algorithm(key.public_key(), path, where)
        self._jws = jwt.PyJWS()

    def sign(self, payload: bytes) -> str:
        return self._jws.encode(payload, self._key, algorithm=self._algorithm, headers={"kid": self._kid})


def _public(table: MqttKeyTable) -> Key:
    where = f"mqtt.key.{table.kid}.file"
    try:
        key = load_pem_public_key(_read(table.file, where))
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigInvalid(where, f"{table.file} holds no public key in PEM form") from error
    if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        raise ConfigInvalid(where, f"{table.file} is neither an EC nor an RSA key")
    return Key(table.source, _algorithm(key, table.file, where), key)


def _algorithm(key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey, path: Path, where: str) -> str:
    if isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1):
            raise ConfigInvalid(where, f"{path} is a key on {key.curve.name}; ES256 wants secp256r1 (P-256)")
        return ES256
    if key.key_size < RSA_LEAST_BITS:
        raise ConfigInvalid(where, f"{path} has {key.key_size} bits; RS256 wants {RSA_LEAST_BITS} or more")
    return RS256


def _read(path: Path, where: str) -> bytes:
    try:
        return copy_of(path).read_bytes()
    except OSError as error:
        raise ConfigInvalid(where, f"cannot read {path}: {(error.strerror or str(error)).lower()}") from error
