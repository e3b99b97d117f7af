"""Mutual TLS between processes: each shows a certificate of one authority, and expects one.

Certificates are replaced while processes run (cert-manager does so): a server reads its files again
when they have changed, and a client makes new channels.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import grpc

from dnd.errors import BadSetting

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of one process.

    Attributes:
        cert: Its certificate, and those between it and the authority's.
        key: The private key of the certificate.
        ca: The certificate of the authority that all processes trust.
    """

    cert: str
    key: str
    ca: str

    def check(self) -> None:
        """Raises BadSetting unless the files are there and belong together."""
        for name, path in (("CERT", self.cert), ("KEY", self.key), ("CA", self.ca)):
            if not Path(path).is_file():
                raise BadSetting(f"DND_TLS_{name} = {path!r}: there is no such file.")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(self.cert, self.key)
        except (ssl.SSLError, OSError) as error:
            raise BadSetting(
                f"DND_TLS_CERT = {self.cert!r} and DND_TLS_KEY = {self.key!r} are no certificate "
                f"and its key: {error}."
            ) from None
        try:
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, OSError) as error:
            raise BadSetting(f"DND_TLS_CA = {self.ca!r}: it is no certificate: {error}.") from None

    def version(self) -> tuple[int, ...]:
        """Changes when a file does."""
        return tuple(Path(path).stat().st_mtime_ns for path in (self.cert, self.key, self.ca))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Credentials of a server that takes only clients of the authority."""
        shown = self.version()

        def renewed() -> grpc.ServerCertificateConfiguration | None:
            """Asked before each handshake; None goes on with what was shown before."""
            nonlocal shown
            try:
                if (version := self.version()) == shown:
                    return None
                self.check()
                configuration = self._configuration()
            except (OSError, BadSetting) as error:  # in the middle of being replaced
                log.warning("the certificate was not read again: %s", error)
                return None
            shown = version
            return configuration

        return grpc.dynamic_ssl_server_credentials(
            self._configuration(),
            renewed,  # type: ignore[arg-type]
            require_client_authentication=True,
        )

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Credentials of a client."""
        key, cert, ca = self._read()
        return grpc.ssl_channel_credentials(ca, key, cert)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        key, cert, ca = self._read()
        return grpc.ssl_server_certificate_configuration([(key, cert)], ca)

    def _read(self) -> tuple[bytes, bytes, bytes]:
        key, cert, ca = (Path(path).read_bytes() for path in (self.key, self.cert, self.ca))
        return key, cert, ca


def tls_files(cert: str, key: str, ca: str) -> TlsFiles | None:
    """The three files, or None if none is named.

    Raises:
        BadSetting: One is named and another is not, is missing, or is no certificate.
    """
    named = {"DND_TLS_CERT": cert, "DND_TLS_KEY": key, "DND_TLS_CA": ca}
    if not any(named.values()):
        return None
    missing = [name for name, path in named.items() if not path]
    if missing:
        raise BadSetting(
            f"{' and '.join(missing)} not set: mutual TLS takes a certificate, its key and the "
            "certificate of the authority."
        )
    files = TlsFiles(cert, key, ca)
    files.check()
    return files


def tls_of_environment(environ: Mapping[str, str]) -> TlsFiles | None:
    """The files that DND_TLS_CERT, DND_TLS_KEY and DND_TLS_CA name, for a command.

    Raises:
        BadSetting: As `tls_files`.
    """
    return tls_files(*(environ.get(f"DND_TLS_{name}", "") for name in ("CERT", "KEY", "CA")))
