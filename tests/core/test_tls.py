"""Which files can be a server's certificate and key, and what is said of others."""

import pytest

from tests.certificates import make_certificate
from webui.core.errors import RequestError
from webui.core.tls import check_certificate


def test_a_certificate_and_its_key_are_taken(tmp_path):
    check_certificate(*make_certificate(tmp_path))


def test_each_other_file_is_named_with_its_fault(tmp_path):
    cert, key = make_certificate(tmp_path)
    _, other = make_certificate(tmp_path, "other")
    _, locked = make_certificate(tmp_path, "locked", b"secret")
    none, junk = tmp_path / "none.pem", tmp_path / "junk.pem"
    junk.write_text("hello")
    for files, said in (
        ((none, key), f"--tls-cert {none} cannot be read: No such file"),
        ((cert, none), f"--tls-key {none} cannot be read: No such file"),
        ((tmp_path, key), f"--tls-cert {tmp_path} cannot be read: Is a directory"),
        ((junk, key), f"--tls-cert {junk} holds no certificate"),
        ((key, cert), f"--tls-cert {key} holds no certificate"),
        ((cert, junk), f"--tls-key {junk} holds no private key"),
        ((cert, other), f"--tls-key {other} does not belong to the certificate {cert}"),
        ((cert, make_certificate(tmp_path, "locked", b"secret")[1]), f"--tls-key {locked} has a passphrase"),
    ):
        with pytest.raises(RequestError) as raised:
            check_certificate(*files)
        assert str(raised.value).startswith(said)
