"""A broker on which nobody may do anything unless an ACL says so: a SASL_SSL listener, and a login for each user."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from orchestrator.broker import SHORT_LIVED, provide

ROOT = "root"
"""The broker's own principal and the only super user."""
LISTENER = "SECURED"


@dataclass(frozen=True, slots=True)
class SecuredBroker:
    """Where it is, and what its users need: the authority that signed its certificate, a password file for each."""

    bootstrap_servers: str
    node_id: int
    authority: Path
    passwords: dict[str, Path]

    def environment(self, user: str) -> dict[str, str]:
        """What a process is given to log in as `user`: the password only as the name of a file."""
        return {
            "SAGA_BOOTSTRAP_SERVERS": self.bootstrap_servers,
            "SAGA_COMMON_SECURITY_PROTOCOL": "SASL_SSL",
            "SAGA_COMMON_SSL_CA_LOCATION": str(self.authority),
            "SAGA_COMMON_SASL_MECHANISM": "PLAIN",
            "SAGA_COMMON_SASL_USERNAME": user,
            "SAGA_COMMON_SASL_PASSWORD_FILE": str(self.passwords[user]),
        }


@contextmanager
def secured_broker(folder: Path, users: Iterable[str]) -> Iterator[SecuredBroker]:
    """One for this caller alone. Its plain listener stays: who has not logged in is nobody, and may do nothing."""
    key, certificate = _certify(folder)
    passwords = {}
    for user in (ROOT, *users):
        passwords[user] = folder / f"{user}.password"
        passwords[user].touch(0o600)
        passwords[user].write_text(f"{user}-secret\n")
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(key),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(certificate),
        "sasl.enabled.mechanisms": "PLAIN",
        "sasl.mechanism.inter.broker.protocol": "PLAIN",
        "sasl.mechanism.controller.protocol": "PLAIN",
        "inter.broker.listener.name": LISTENER,
        "listener.security.protocol.map": f"PLAINTEXT:PLAINTEXT,CONTROLLER:SASL_SSL,{LISTENER}:SASL_SSL",
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "allow.everyone.if.no.acl.found": "false",
        "super.users": f"User:{ROOT}",
    }
    for listener in ("controller", LISTENER.lower()):
        properties[f"listener.name.{listener}.plain.sasl.jaas.config"] = _logins(passwords)
    with provide(ephemeral=True, listeners={LISTENER: "SASL_SSL"}, properties=properties, jvm=SHORT_LIVED) as broker:
        assert broker.node is not None
        yield SecuredBroker(broker.node.address(LISTENER), broker.node.layout.node_id, certificate, passwords)


def _certify(folder: Path) -> tuple[Path, Path]:
    """A key with its certificate, and the certificate alone: signed by itself, so it is its own authority."""
    key, certificate = folder / "broker.pem", folder / "authority.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(command, check=True, capture_output=True)
    with key.open("a") as both:
        both.write(certificate.read_text())
    return key, certificate


def another_certificate(folder: Path) -> Path:
    """Another key of the broker, with a certificate that its first one has signed: whoever trusts that takes it too."""
    key, request, signed = folder / "next.pem", folder / "next.csr", folder / "next.crt"
    command = ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(request)]
    subprocess.run(command, check=True, capture_output=True)
    command = ["openssl", "x509", "-req", "-in", str(request), "-CA", str(folder / "authority.pem")]
    command += ["-CAkey", str(folder / "broker.pem"), "-CAcreateserial", "-copy_extensions", "copy", "-days", "2"]
    subprocess.run([*command, "-out", str(signed)], check=True, capture_output=True)
    with key.open("a") as both:
        both.write(signed.read_text() + (folder / "authority.pem").read_text())
    return key


def _logins(passwords: dict[str, Path]) -> str:
    """Who may log in, and as whom the broker itself does."""
    users = " ".join(f'user_{user}="{path.read_text().strip()}"' for user, path in passwords.items())
    own = f'username="{ROOT}" password="{passwords[ROOT].read_text().strip()}"'
    return f"org.apache.kafka.common.security.plain.PlainLoginModule required {own} {users};"
