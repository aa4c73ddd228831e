"""pip against a loopback server that answers 407, 403, with its own certificate or not at all."""

import contextlib
import http.server
import os
import shutil
import ssl
import subprocess
import sys
import threading
import time

import pytest
from kestrel.plugin.installing import children, pip
from kestrel.plugin.installing.errors import InstallError
from kestrel.tests.support.toy_runtime import quiet_environ

#: A dead end for what must not be reached: port 9 is discard, and nothing listens there.
NOWHERE = "http://127.0.0.1:9/simple"


@contextlib.contextmanager
def serve(answer, context=None):
    """Serve ``answer(handler)`` for GET and CONNECT on the loopback; yield host:port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        do_CONNECT = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    if context:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def fetch(tmp_path, index, cancelled=lambda: False, stall_s=20.0, **environ):
    """Let pip fetch a package from ``index``."""
    base = quiet_environ(os.environ, **environ)
    tmp = pip.temporary_folder(tmp_path)
    tmp.mkdir(parents=True)
    pip.run_pip(
        sys.executable,
        ["download", "--no-deps", "toy", "--index-url", index, "--dest", str(tmp_path / "got")],
        pip.installer_environment(base, home=tmp_path),
        pip.debug_log(tmp_path),
        line=lambda text: None,
        cancelled=cancelled,
        stall_s=stall_s,
        size=lambda: pip.downloaded_bytes(tmp_path),
    )


@pytest.mark.slow
def test_fault_a_proxy_that_wants_a_password(tmp_path):
    with serve(lambda handler: handler.send_error(407)) as proxy, pytest.raises(InstallError) as caught:
        fetch(tmp_path, "https://packages.test/simple", HTTPS_PROXY=f"http://{proxy}")
    assert caught.value.code == "proxy"
    assert caught.value.message == "The proxy before packages.test asks for a name and a password (407)."
    assert "Network" in caught.value.hint


@pytest.mark.slow
def test_fault_an_index_that_forbids(tmp_path):
    with serve(lambda handler: handler.send_error(403)) as host, pytest.raises(InstallError) as caught:
        fetch(tmp_path, f"http://{host}/simple")
    assert caught.value.code == "forbidden"
    assert caught.value.message == "127.0.0.1 refuses the download (403, access forbidden)."


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_fault_a_certificate_nobody_signed(tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "1", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve(lambda handler: handler.send_error(403), context) as host:
        with pytest.raises(InstallError) as caught:
            fetch(tmp_path / "a", f"https://{host}/simple")
        assert caught.value.code == "tls"
        assert caught.value.message.startswith("The certificate of 127.0.0.1 is not trusted:")
        # the hint helps: with that file pip gets as far as the server's own answer
        with pytest.raises(InstallError) as caught:
            fetch(tmp_path / "b", f"https://{host}/simple", PIP_CERT=str(certificate))
        assert caught.value.code == "forbidden"


@pytest.mark.slow
def test_fault_a_connection_that_stalls(tmp_path):
    over = threading.Event()
    start = time.monotonic()
    with serve(lambda handler: over.wait(30)) as host, pytest.raises(InstallError) as caught:
        fetch(tmp_path, f"http://{host}/simple", stall_s=6.0)  # pip takes 3 s to start on a busy machine
    over.set()
    assert caught.value.code == "stall"
    assert caught.value.message == "The connection to 127.0.0.1 stalled: nothing came for 6 s."
    assert time.monotonic() - start < 20


@pytest.mark.slow
def test_fault_no_network(tmp_path):
    with pytest.raises(InstallError) as caught:
        fetch(tmp_path, NOWHERE)
    assert caught.value.code == "network"
    assert caught.value.message == "127.0.0.1 cannot be reached."
    assert "WHEELS" in caught.value.hint


def test_cancel_kills_the_whole_tree(tmp_path):
    """A grandchild that would write a file in a second must not come to it."""
    mark = tmp_path / "written"
    grandchild = f"import time; time.sleep(1); open({str(mark)!r}, 'w')"
    script = tmp_path / "parent.py"
    script.write_text(
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {grandchild!r}])\n"
        "print('started', flush=True)\nchild.wait()\n"
    )
    said = []
    start = time.monotonic()
    with pytest.raises(children.Cancelled):
        children.run_module(
            sys.executable, [str(script)], os.environ, line=said.append,
            cancelled=lambda: "started" in said, stall_s=20.0,
        )  # fmt: skip
    time.sleep(max(0.0, start + 1.6 - time.monotonic()))
    assert not mark.exists()
