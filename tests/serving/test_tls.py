"""HTTPS, by a certificate made for the test."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from nearline.errors import ConfigError
from nearline.settings import settings
from serving.client import RecommendationClient
from serving.errors import Unreachable
from serving.workers import Certificate


def make_certificate(folder: Path, name: str) -> Certificate:
    """A certificate of 127.0.0.1 that signs itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    found = Certificate(folder / f"{name}.crt", folder / f"{name}.key")
    found.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return found


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "ours")


@pytest.fixture
def port(world: Any, listening: Any, certificate: Certificate) -> Iterator[int]:
    """Where the world's app speaks HTTPS."""
    world.promote(["i0", "i1"])
    with listening(world.app(), certificate=certificate) as port:
        yield port


def test_the_client_speaks_https_to_whom_it_trusts(
    port: int, certificate: Certificate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NEARLINE_SERVE_PORT", str(port))
    monkeypatch.setenv("NEARLINE_TLS_CERT", str(certificate.cert))
    settings.cache_clear()
    with RecommendationClient() as client, pytest.raises(Unreachable, match="certificate"):
        client.health()
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.cert))
    with RecommendationClient() as client:
        assert client.health().status == "ready"


def test_without_https_nothing_is_told(port: int) -> None:
    async def plain() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""

    assert b"ok" not in asyncio.run(plain())


def test_the_files_of_a_certificate_are_checked(certificate: Certificate, tmp_path: Path) -> None:
    cert, key = str(certificate.cert), str(certificate.key)
    other = str(make_certificate(tmp_path, "other").key)
    assert Certificate.of("", "") is None
    assert Certificate.of(cert, key) == certificate
    for wrong in (("", key), (cert, ""), (cert, other), (key, cert), (cert, "nowhere")):
        with pytest.raises(ConfigError, match="NEARLINE_TLS_CERT"):
            Certificate.of(*wrong)
