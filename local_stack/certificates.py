"""Certificates for local servers, each signed by its own key."""

from __future__ import annotations

import subprocess
from pathlib import Path

from local_stack.service import program


def self_signed(folder: Path, name: str, *addresses: str, days: int = 2) -> Path:
    """Make a certificate for a host name and IP addresses; returns NAME.pem, which has it and its key.

    NAME.crt beside it has the certificate alone, and NAME.key its key. Raises ConfigurationError where OpenSSL is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ",".join([f"DNS:{name}", *(f"IP:{address}" for address in addresses)])
    certificate, key, both = (folder / f"{name}.{kind}" for kind in ("crt", "key", "pem"))
    subprocess.run(
        [program("openssl", "Install OpenSSL."), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
         "-days", str(days), "-subj", f"/CN={name}", "-addext", f"subjectAltName={names}", "-keyout", key,
         "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    both.write_text(key.read_text() + certificate.read_text())
    return both
