"""amqps://: a broker that proves who it is, and each way of not doing so told in one clear text."""
import pathlib
import shutil
import socket
import ssl
import threading

import pytest

import processes
import servers
from certificates import Authority


@pytest.fixture(scope="module")
def authority(worker_folder):
    folder = worker_folder / "certificates"
    folder.mkdir(mode=0o755)
    yield Authority(folder)
    shutil.rmtree(folder)


class TlsBroker(servers.RabbitMQ):
    """A broker that wants TLS and a client certificate from the authority."""

    def __init__(self, folder, authority):
        super().__init__(folder)
        self.tls_port = processes.free_port()
        certificate, key = authority.sign("broker")
        self.configuration = (f"listeners.ssl.default = {self.tls_port}\nssl_options.cacertfile = {authority.file}\n"
                              f"ssl_options.certfile = {certificate}\nssl_options.keyfile = {key}\n"
                              "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n")
        for path in authority.folder.glob("broker.*"):
            path.chmod(0o644)

    def tls_url(self, host="localhost", password="guest"):
        return f"amqps://guest:{password}@{host}:{self.tls_port}/"


@pytest.fixture(scope="module")
def tls_broker(worker_folder, authority, outlives_tests):
    broker = TlsBroker(worker_folder / "tls-rabbitmq", authority)
    broker.start()
    processes.wait_for(lambda: servers.port_open(broker.tls_port), 30, "the TLS listener")
    outlives_tests(broker.process.pid, broker.epmd.pid)
    yield broker
    broker.remove()


@pytest.fixture
def handshakes():
    """handshakes(certificate, key, newest=VERSION): a TLS server that gets as far as the handshake; its port."""
    listeners = []

    def serve(listener, context):
        while True:
            try:
                connection, _ = listener.accept()
                context.wrap_socket(connection, server_side=True).close()
            except ssl.SSLError:
                pass
            except OSError:
                return

    def start(certificate, key, newest=None):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if newest:
            context.set_ciphers("ALL:@SECLEVEL=0")
            context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, newest
        context.load_cert_chain(certificate, key)
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)
        threading.Thread(target=serve, args=(listener, context), daemon=True).start()
        return listener.getsockname()[1]
    yield start
    for listener in listeners:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@pytest.fixture
def refusal(relay, outbox, database):
    """What the relay says of a broker that it does not get to."""
    def ask(url, **files):
        outbox.tell(1)
        ada = relay(database, url, rabbitmq={"url": url, "exchange": "heirflow.news", **files})
        ada.wake()
        detail = ada.wait_for("news-unreachable")["detail"]
        assert "guest" not in detail and "s3cret" not in detail
        return detail
    return ask


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_both_sides_prove_who_they_are(relay, outbox, database, tls_broker, authority, host, viewer):
    certificate, key = authority.sign("member")
    tls_broker.exchange = f"tls.{host}"
    one = viewer(tls_broker)
    outbox.tell(300)
    ada = relay(database, tls_broker.tls_url(host), rabbitmq={
        "url": tls_broker.tls_url(host), "exchange": tls_broker.exchange, "ca_file": str(authority.file),
        "cert_file": certificate, "key_file": key})
    ada.wake()
    assert ada.wait_for("news-connected")["detail"] == f"{host}:{tls_broker.tls_port}/"
    one.take_until(300)
    assert one.sequences() == list(range(1, 301))
    ada.wait_for("news-caught-up")
    assert ada.stop() < 1500


def test_no_client_certificate(refusal, tls_broker, authority):
    detail = refusal(tls_broker.tls_url(), ca_file=str(authority.file))
    assert f"localhost:{tls_broker.tls_port}/" in detail and "want a client certificate" in detail
    assert "rabbitmq.cert_file" in detail


def test_a_client_certificate_of_another_authority(refusal, tls_broker, authority):
    certificate, key = Authority(authority.folder, "stranger").sign("strange-member")
    detail = refusal(tls_broker.tls_url(), ca_file=str(authority.file), cert_file=certificate, key_file=key)
    # the broker may have hung up before its reason was read
    assert "does not accept the certificate in rabbitmq.cert_file (tlsv1 alert unknown ca)" in detail or (
        "check rabbitmq.cert_file" in detail and "another one" in detail)


def test_a_wrong_password_is_no_matter_of_certificates(refusal, tls_broker, authority):
    certificate, key = authority.sign("member")
    detail = refusal(tls_broker.tls_url(password="s3cret"), ca_file=str(authority.file), cert_file=certificate, key_file=key)
    assert "check user and password" in detail


def test_amqp_where_tls_is_wanted(refusal, tls_broker):
    detail = refusal(tls_broker.tls_url().replace("amqps", "amqp"))
    assert "amqps://" in detail


def test_tls_where_there_is_none(refusal, rabbitmq, authority):
    detail = refusal(rabbitmq.url.replace("amqp:", "amqps:"), ca_file=str(authority.file))
    assert "does not speak TLS" in detail and str(rabbitmq.port) in detail


@pytest.mark.parametrize("how, says", [
    ({"at": "2001-01-01"}, "has expired"),
    ({"at": "2090-01-01"}, "is not valid yet"),
    ({"names": "DNS:elsewhere.example"}, "for another name than \"localhost\""),
    ({"names": "DNS:*.localhost,IP:127.0.0.1"}, "for another name than \"localhost\""),
], ids=["expired", "too early", "wrong name", "wildcard"])
def test_a_bad_certificate(refusal, handshakes, authority, how, says):
    port = handshakes(*authority.sign("bad", **how))
    detail = refusal(f"amqps://guest:s3cret@localhost:{port}/", ca_file=str(authority.file))
    assert detail.startswith(f"broker localhost:{port}/: its certificate ") and says in detail


def test_an_address_that_the_certificate_does_not_have(refusal, handshakes, authority):
    port = handshakes(*authority.sign("nameless", names="DNS:localhost"))
    assert "another name than \"127.0.0.1\"" in refusal(f"amqps://127.0.0.1:{port}/", ca_file=str(authority.file))


@pytest.mark.parametrize("ca", ["another", "system"])
def test_an_unknown_authority(refusal, handshakes, authority, ca):
    port = handshakes(*authority.sign("good"))
    files = {"ca_file": str(Authority(authority.folder, "another").file)} if ca == "another" else {}
    detail = refusal(f"amqps://guest:s3cret@localhost:{port}/", **files)
    assert "unknown authority" in detail and "rabbitmq.ca_file" in detail


def test_files_that_cannot_be_used(refusal, tls_broker, authority):
    certificate, key = authority.sign("member")
    _, other_key = authority.sign("other-member")
    missing, empty = str(authority.folder / "missing"), authority.folder / "empty"
    empty.write_text("")
    url = tls_broker.tls_url()
    assert f"rabbitmq.ca_file {missing}: No such file" in refusal(url, ca_file=missing)
    assert f"rabbitmq.ca_file {empty} cannot be used" in refusal(url, ca_file=str(empty))
    detail = refusal(url, ca_file=str(authority.file), cert_file=certificate, key_file=other_key)
    assert "rabbitmq.key_file" in detail and "mismatch" in detail


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.parametrize("own", [False, True], ids=["without a certificate", "with one"])
def test_an_old_version_of_tls(refusal, handshakes, authority, newest, own):
    port = handshakes(*authority.sign("old"), newest=newest)
    certificate, key = authority.sign("member")
    files = {"cert_file": certificate, "key_file": key} if own else {}
    assert "no TLS 1.2 or newer" in refusal(f"amqps://localhost:{port}/", ca_file=str(authority.file), **files)


def test_a_key_that_others_can_read_is_refused(refusal, authority):
    certificate, key = authority.sign("open")
    pathlib.Path(key).chmod(0o644)
    detail = refusal("amqps://localhost:1/", ca_file=str(authority.file), cert_file=certificate, key_file=key)
    assert f"rabbitmq.key_file {key} is open to every user" in detail and "chmod o=" in detail
