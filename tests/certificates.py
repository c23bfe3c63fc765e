"""Certificates for tests: an authority, and what it signs, as the files that a configuration names."""

from pathlib import Path

import trustme

from rapid.tls import TlsConfig


def issue(authority: trustme.CA, folder: Path, *names: str) -> TlsConfig:
    """A certificate for these hosts, its key, and the authority's own certificate, in a new folder."""
    folder.mkdir(parents=True)
    tls = TlsConfig(ca=folder / "ca.pem", cert=folder / "cert.pem", key=folder / "key.pem")
    issued = authority.issue_cert(*names)
    authority.cert_pem.write_to_path(tls.ca)
    issued.private_key_pem.write_to_path(tls.key)
    for index, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(tls.cert, append=index > 0)
    return tls
