"""What pip prints becomes one sentence: canned words of pip, its environment, sources, locks, disk."""

import errno
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from kestrel.plugin import paths
from kestrel.plugin.installing import disk, locks, pip, pip_errors, runtime_build, sources
from kestrel.plugin.installing.errors import InstallError
from kestrel.plugin.installing.options import Options
from kestrel.tests.support import toy_runtime

RESOURCES = paths.ROOT / "resources" / "runtime"
NO_MATCH = "ERROR: No matching distribution found for numpy==1.26.4"
RETRY = "WARNING: Retrying (Retry(total=0)) after connection broken by '%s': /simple/numpy/"
OLD_RETRY = "urllib3.connectionpool.HTTPSConnectionPool(host='mirror.test', port=443): Max retries exceeded"


@pytest.mark.parametrize(
    ("text", "code", "word"),
    [
        (
            RETRY % "ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 407 x'))",
            "proxy",
            "407",
        ),
        (RETRY % "ProxyError('Cannot connect to proxy.', NewConnectionError('refused'))", "proxy", "reached"),
        (RETRY % "SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))", "tls", "certificate"),
        (
            "Could not fetch URL https://mirror.test/simple/: 403 Client Error: Forbidden",
            "forbidden",
            "mirror.test",
        ),
        (
            "401 Client Error: Unauthorized for url: https://me:word@mirror.test/simple/",
            "forbidden",
            "mirror.test",
        ),
        (RETRY % "ReadTimeoutError(\"host='mirror.test'): Read timed out.\")", "stall", "mirror.test"),
        (RETRY % "NewConnectionError('[Errno -2] Name or service not known')", "network", "reached"),
        (f"{OLD_RETRY} (Caused by ConnectTimeoutError(...))", "network", "mirror.test"),
        (
            "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
            "disk",
            "full",
        ),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "hash", "sha256"),
        ("ERROR: [WinError 32] The process cannot access the file: 'c10.dll'", "locked", "another program"),
        ("503 Server Error: Unavailable for url: https://mirror.test/simple/", "server", "mirror.test"),
        ("", "no_wheel", "numpy==1.26.4"),
    ],
)
def test_a_cause_comes_before_what_follows_from_it(text, code, word):
    """pip ends nearly all of them with the same line about a missing distribution."""
    error = pip_errors.classify(f"{text}\n{NO_MATCH}")
    assert (error.code, word in error.message, bool(error.hint)) == (code, True, True), error.message
    assert "word@" not in error.message


def test_an_unknown_failure_repeats_pips_last_error():
    error = pip_errors.classify("ERROR: first\nERROR: the moon is in the way")
    assert error.code == "pip"
    assert "the moon is in the way" in error.message


def test_the_environment_keeps_pips_settings_and_drops_what_misleads_it(tmp_path):
    base = {
        "PATH": os.pathsep.join(["/opt/qgis/bin", "/usr/bin", "/opt/conda/bin"]),
        "PIP_INDEX_URL": "https://mirror.test/simple", "SSL_CERT_FILE": "/c.pem", "HTTPS_PROXY": "http://own:1",
        "PYTHONEXECUTABLE": "x", "__PYVENV_LAUNCHER__": "x", "CONDA_PREFIX": "/opt/conda", "PYTHONHOME": "x",
        "PIP_TARGET": "x", "LD_LIBRARY_PATH": "x", "QGIS_PREFIX_PATH": "x",
    }  # fmt: skip
    environ = pip.installer_environment(
        base, home=tmp_path, proxy="http://qgis:2", certificates=Path("/q.pem"), qgis_folders=("/opt/qgis",)
    )
    assert environ["PATH"] == "/usr/bin"
    assert {name for name in base if name in environ} == {
        "PATH", "PIP_INDEX_URL", "SSL_CERT_FILE", "HTTPS_PROXY",
    }  # fmt: skip
    assert environ["HTTPS_PROXY"] == "http://own:1"
    assert environ["PIP_CERT"] == "/q.pem"
    without = pip.installer_environment({}, home=tmp_path, proxy="http://qgis:2")
    assert without["HTTPS_PROXY"] == without["HTTP_PROXY"] == "http://qgis:2"
    assert "PIP_CERT" not in without
    own = {"REQUESTS_CA_BUNDLE": "/own.pem"}
    assert "PIP_CERT" not in pip.installer_environment(own, home=tmp_path, certificates=Path("/q.pem"))


@pytest.mark.parametrize(
    ("tag", "machine", "name"),
    [
        ("linux-x86_64", "x86_64", "linux-x86_64"),
        ("win-amd64", "AMD64", "windows-x86_64"),
        ("win32", "AMD64", "windows-32bit"),
        ("macosx-11.0-arm64", "arm64", "macos-arm64"),
        ("macosx-10.9-universal2", "arm64", "macos-arm64"),
        ("macosx-10.9-x86_64", "x86_64", "macos-x86_64"),
    ],
)
def test_platforms_have_one_name(tag, machine, name):
    assert sources.platform_name(tag, machine) == name


def test_every_build_has_a_lock_for_every_python_and_pins_what_runtime_txt_pins():
    pins = {}
    for line in (paths.ROOT / "requirements" / "runtime.txt").read_text().splitlines():
        name, _, version = line.partition("#")[0].strip().partition("==")
        if version:
            pins[name] = version
    for platform in ("linux-x86_64", "linux-aarch64", "windows-x86_64", "macos-arm64"):
        assert sources.choose_build(RESOURCES, platform, "cpu").plain == f"torch=={pins['torch']}"
        for minor in (11, 12, 13):
            lock = locks.read_lock(RESOURCES, platform, (3, minor))
            text = lock.path.read_text()
            assert lock.packages == text.count("==") > 20
            assert min(lock.download_mb, lock.installed_mb) > 50
            for name, version in pins.items():
                if name == "torch":
                    assert "\ntorch==" not in text  # comes in a call of its own
                elif (name, minor) != ("numpy", 13):  # 1.26 has no wheel for 3.13
                    assert f"\n{name}=={version} --hash=sha256:" in text


@pytest.mark.parametrize("platform", ["macos-x86_64", "windows-32bit", "linux-riscv64"])
def test_exception_a_platform_without_torch(platform):
    with pytest.raises(InstallError, match=f"no build of torch 2.13.0 for CPU on {platform}") as caught:
        sources.choose_build(RESOURCES, platform, "cpu")
    assert "KESTREL_PYTHON" in caught.value.hint


def test_exception_a_python_without_a_lock():
    with pytest.raises(InstallError, match=r"no list of packages for Python 3.14 on linux-x86_64"):
        locks.read_lock(RESOURCES, "linux-x86_64", (3, 14))


@pytest.mark.parametrize(
    ("answer", "expected"), [("GPU 0: NVIDIA T4 (UUID)", "cuda"), ("No devices found", "cpu")]
)
def test_auto_is_cuda_only_where_the_driver_answers(tmp_path, answer, expected):
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    environ = {"PATH": str(tmp_path)}
    assert sources.pick_accelerator("auto", "linux-x86_64", RESOURCES, environ) == expected
    assert sources.pick_accelerator("auto", "macos-arm64", RESOURCES, environ) == "cpu"
    assert sources.pick_accelerator("auto", "linux-x86_64", RESOURCES, {"PATH": "/nowhere"}) == "cpu"


def test_a_runtime_is_named_by_what_it_holds():
    lock = locks.read_lock(RESOURCES, "linux-x86_64", (3, 11))
    cpu, cuda = (sources.choose_build(RESOURCES, "linux-x86_64", each) for each in ("cpu", "cuda"))
    keys = {
        locks.runtime_key(lock, cpu, (3, 11)),
        locks.runtime_key(lock, cuda, (3, 11)),
        locks.runtime_key(lock, cpu, (3, 12)),
    }
    assert len(keys) == 3
    assert all(len(key) == 12 and int(key, 16) >= 0 for key in keys)


def test_exception_too_little_space_is_said_before_the_download(tmp_path, monkeypatch):
    lock = locks.read_lock(RESOURCES, "linux-x86_64", (3, 11))
    build = sources.choose_build(RESOURCES, "linux-x86_64", "cpu")
    needed = disk.needed_mb(lock, build, local=False)
    more = 2 * (lock.download_mb + build.download_mb)
    assert needed - disk.needed_mb(lock, build, local=True) == more
    usage = shutil._ntuple_diskusage(10**12, 0, int(needed * 1e6))
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    disk.check_space(tmp_path / "not" / "there" / "yet", needed)
    with pytest.raises(InstallError, match=r"needs about \d\.\d GB in .*, where only \d\.\d GB are free"):
        disk.check_space(tmp_path, needed + 1)


def test_exception_a_home_that_cannot_be_written(tmp_path):
    """A file in the way refuses root too, whom no permission bit stops."""
    resources = toy_runtime.write_toys(tmp_path)
    (tmp_path / "file").write_text("")
    options = Options(home=tmp_path / "file" / "home", resources=resources, accelerator="cpu")
    with pytest.raises(InstallError, match=r"Kestrel cannot write .*file") as caught:
        runtime_build.install(toy_runtime.BASE, options)
    assert caught.value.code == "home"
    assert "KESTREL_HOME" in caught.value.hint


def test_a_base_is_known_by_the_name_that_states_its_version(tmp_path):
    """Else an upgrade of the system would put another Python under the runtime's feet."""
    (tmp_path / "python3.11").write_text("")
    (tmp_path / "python3").symlink_to("python3.11")
    assert runtime_build._versioned(tmp_path / "python3", (3, 11)) == tmp_path / "python3.11"
    assert runtime_build._versioned(tmp_path / "python3", (3, 12)) == tmp_path / "python3"
    (tmp_path / "python3.12").write_text("")
    assert runtime_build._versioned(tmp_path / "python3", (3, 12)) == tmp_path / "python3"


def test_exception_a_base_that_is_no_python(tmp_path):
    resources = toy_runtime.write_toys(tmp_path)
    base = SimpleNamespace(python="/bin/true", version=(3, 11), source="test")
    with pytest.raises(InstallError, match="The Python /bin/true does not start"):
        runtime_build.install(base, Options(home=tmp_path / "home", resources=resources))
    assert not (tmp_path / "home").exists()


def test_disk_full_is_known_by_its_number():
    text = f"OSError: [Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"
    assert pip_errors.classify(text).code == "disk"
