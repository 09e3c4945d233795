"""TLS contexts for servers on loopback, with certificates made on the fly: good and bad ones."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)
# Python 3.13 checks all that RFC 5280 section 4.2.1 demands.
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=True,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Authority:
    """A certificate authority of its own; SSL_CERT_FILE=`path` makes a client trust it."""

    path: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def made_in(cls, directory: Path) -> Authority:
        """A new authority, its certificate saved in `directory`."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder("keysync test authority", key, timedelta(days=2))
            .issuer_name(_name("keysync test authority"))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()),
                critical=False,
            )
            .sign(key, hashes.SHA256())
        )
        path = directory / "authority.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(path, key, certificate)

    def server(
        self,
        address: str = "127.0.0.1",
        *,
        expired: bool = False,
        self_signed: bool = False,
        not_yet: bool = False,
    ) -> ssl.SSLContext:
        """A server's context whose certificate is for `address`, an IP address or a name."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer, signer = (
            (_name(address), key) if self_signed else (self.certificate.subject, self.key)
        )
        certificate = (
            _builder(address, key, -_DAY if expired else 2 * _DAY, _DAY if not_yet else -2 * _DAY)
            .issuer_name(issuer)
            .add_extension(x509.SubjectAlternativeName([_general_name(address)]), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()),
                critical=False,
            )
            .sign(signer, hashes.SHA256())
        )
        file = self.path.with_name(f"server-{certificate.serial_number}.pem")
        file.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context


def _builder(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    left: timedelta,
    begins_in: timedelta = -2 * _DAY,
) -> x509.CertificateBuilder:
    now = datetime.now(timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins_in)
        .not_valid_after(now + left)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
