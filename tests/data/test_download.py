"""Whatever a server, a proxy or a disk does, a download ends with a true cause and no partial file."""

from __future__ import annotations

import gzip
import hashlib
import io
import socket
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from data.npz_files import medmnist_arrays, write
from filelock import FileLock

from fl_ppae.config import RunConfig
from fl_ppae.data import official, sources
from fl_ppae.data.download import DownloadError, Limits, fetch, host_answers
from fl_ppae.data.registry import DATASETS
from fl_ppae.data.spec import DatasetSpec, OfficialFile
from fl_ppae.errors import UserError
from fl_ppae.steps import watched_by

SHORT = Limits(seconds=0.4, slowest=2_000, largest=100_000)
CONTENT = bytes(range(256)) * 40

Serve = Callable[[socket.socket, threading.Event], None]


@pytest.fixture(autouse=True)
def no_proxies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@contextmanager
def serving(serve: Serve) -> Iterator[str]:
    """The address of a server that answers every connection with `serve`."""
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer(connection: socket.socket) -> None:
            with connection:
                connection.recv(65536)
                try:
                    serve(connection, ended)
                except OSError:  # the client has had enough
                    return

        def accept() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/bloodmnist.npz"
        finally:
            ended.set()
            server.shutdown(socket.SHUT_RDWR)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def reply(status: str, *headers: str, body: bytes = b"") -> Serve:
    head = "\r\n".join((f"HTTP/1.1 {status}", *headers, "Connection: close", "", "")).encode()
    return lambda connection, _: connection.sendall(head + body)


def sends(content: bytes) -> Serve:
    return reply("200 OK", f"Content-Length: {len(content)}", body=content)


def silent(connection: socket.socket, ended: threading.Event) -> None:
    ended.wait()


def trickle(head: bytes) -> Serve:
    """`head`, then a byte now and then, for ever."""

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(head)
        while not ended.wait(0.05):
            connection.sendall(b"x")

    return serve


def endless(connection: socket.socket, ended: threading.Event) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while not ended.is_set():
        connection.sendall(CONTENT)


def stops(connection: socket.socket, ended: threading.Event) -> None:
    reply("200 OK", "Content-Length: 2000000", body=bytes(500))(connection, ended)
    ended.wait()


TROUBLES: dict[str, tuple[Serve, str]] = {
    "accepts and is silent": (silent, "127.0.0.1 did not answer within 0.4 s"),
    "trickles its header": (trickle(b"HTTP/1.1 200 OK\r\nX: "), "127.0.0.1 did not answer within 0.4 s"),
    "trickles the file": (trickle(b"HTTP/1.1 200 OK\r\n\r\n"), "127.0.0.1 is too slow"),
    "stops half-way": (stops, "127.0.0.1 is too slow: .* after 0.0 of 2.0 MB"),
    "closes half-way": (
        reply("200 OK", "Content-Length: 2000000", body=bytes(1000)),
        "127.0.0.1 closed the connection after 0.0 of 2.0 MB",
    ),
    "closes at once": (lambda connection, ended: None, "127.0.0.1 closed the connection"),
    "is no web server": (lambda connection, _: connection.sendall(b"SSH-2.0\r\n"), "does not answer in HTTP"),
    "answers with a page": (
        reply("200 OK", "Content-Type: text/html; charset=utf-8", body=b"<html>sign in</html>"),
        "127.0.0.1 answered with a page instead of the file",
    ),
    "has no such file": (reply("404 Not Found", body=b"<html>"), "127.0.0.1 answered 404 Not Found"),
    "is overloaded": (reply("503 Service Unavailable"), "127.0.0.1 answered 503 Service Unavailable"),
    "redirects in a circle": (reply("302 Found", "Location: /again"), "127.0.0.1 redirects in a circle"),
    "redirects to a file": (reply("302 Found", "Location: file:///etc/hostname"), "127.0.0.1 answered 302"),
    "redirects to ftp": (reply("302 Found", "Location: ftp://x/y"), "to an address that is not https"),
    "redirects to a host that refuses": (
        reply("302 Found", f"Location: http://localhost:{closed_port()}/"),
        "localhost refused the connection",
    ),
    "never ends": (endless, "127.0.0.1 sends more than 0 MB"),
}


@pytest.mark.parametrize("kind", TROUBLES)
def test_a_server_that_misbehaves_is_named_with_its_fault_before_long(kind: str, tmp_path: Path) -> None:
    serve, said = TROUBLES[kind]
    start = time.monotonic()
    with serving(serve) as url, pytest.raises(DownloadError, match=said):
        fetch(url, tmp_path / "file", "BloodMNIST", SHORT)
    assert time.monotonic() - start < 5


def test_a_server_that_is_slow_but_steady_is_given_its_time(tmp_path: Path) -> None:
    def serve(connection: socket.socket, ended: threading.Event) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(CONTENT)}\r\n\r\n".encode())
        for start in range(0, len(CONTENT), 1024):
            connection.sendall(CONTENT[start : start + 1024])
            ended.wait(0.1)

    start = time.monotonic()
    with serving(serve) as url:
        fetch(url, tmp_path / "file", "BloodMNIST", SHORT)
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert time.monotonic() - start > 2 * SHORT.seconds


def test_a_host_that_refuses_or_has_no_address_is_named(tmp_path: Path) -> None:
    for url, said in (
        (f"http://127.0.0.1:{closed_port()}/x", "127.0.0.1 refused the connection"),
        ("http://no-such-host.invalid/x", "no-such-host.invalid has no known address"),
    ):
        with pytest.raises(DownloadError, match=said):
            fetch(url, tmp_path / "file", "BloodMNIST", Limits(seconds=5))
        assert not host_answers(url, seconds=2)


def test_a_host_that_answers_is_told_from_one_that_does_not() -> None:
    with serving(silent) as url:
        assert host_answers(url, seconds=2)


@pytest.mark.parametrize(
    ("proxy", "said"),
    [
        ("http://me:secret@127.0.0.1:{closed}", "the proxy 127.0.0.1:{closed} refused the connection"),
        ("127.0.0.1:{closed}", "the proxy 127.0.0.1:{closed} refused the connection"),
        (
            "http://me:secret@no-such-proxy.invalid:8",
            "the proxy no-such-proxy.invalid:8 has no known address",
        ),
        ("http://me:secret@proxy:port", "http_proxy is not an address"),
        ("http://", "http_proxy is not an address"),
    ],
)
def test_a_proxy_that_leads_nowhere_is_named_without_its_password(
    proxy: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = closed_port()
    monkeypatch.setenv("http_proxy", proxy.format(closed=port))
    with serving(sends(CONTENT)) as url:
        with pytest.raises(DownloadError, match=said.format(closed=port)) as refusal:
            fetch(url, tmp_path / "file", "BloodMNIST", Limits(seconds=5))
        assert not host_answers(url, seconds=2)
        assert "secret" not in str(refusal.value)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        fetch(url, tmp_path / "file", "BloodMNIST", SHORT)


def test_a_full_disk_is_named_as_the_cause() -> None:
    with (
        serving(sends(CONTENT)) as url,
        pytest.raises(DownloadError, match="/dev can't be written: No space"),
    ):
        fetch(url, Path("/dev/full"), "BloodMNIST", SHORT)


def test_the_download_says_whom_it_waits_for_and_how_much_has_come(tmp_path: Path) -> None:
    said: list[str] = []

    class Recorded:
        def step(self, text: str, *, aloud: bool = False) -> None:
            said.append(text)

        def count(self, done: int, total: int) -> None:
            raise AssertionError("a download counts no parts")

    def serve(connection: socket.socket, ended: threading.Event) -> None:
        ended.wait(0.15)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n" + bytes(1000))
        ended.wait(0.15)
        connection.sendall(bytes(1000))

    with serving(serve) as url, watched_by(Recorded()):
        fetch(url, tmp_path / "file", "BloodMNIST", SHORT)
    assert said[0] == "waiting for 127.0.0.1"
    assert "downloading BloodMNIST from 127.0.0.1: 0.0 of 0.0 MB" in said


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], bytes]:
    """Make an address the official one of a small BloodMNIST; returns the file's content."""

    def build(url: str) -> bytes:
        content = write(tmp_path / "official.npz", medmnist_arrays()).read_bytes()
        files = (OfficialFile("bloodmnist.npz", hashlib.md5(content).hexdigest()),)
        spec = replace(DATASETS["bloodmnist"], urls=(url,), files=files)
        monkeypatch.setitem(DATASETS, "bloodmnist", spec)
        return content

    return build


def config(source: str, root: Path) -> RunConfig:
    return RunConfig.from_flat({"dataset": "bloodmnist", "data-source": source, "data-root": str(root)})


@pytest.mark.parametrize("trouble", [silent, sends(CONTENT)], ids=["silent", "another file"])
def test_a_failed_download_leaves_no_file_and_no_lock(
    trouble: Serve, tmp_path: Path, served: Callable[[str], bytes]
) -> None:
    root = tmp_path / "root"
    with serving(trouble) as url:
        served(url)
        with pytest.raises(UserError, match=r"BloodMNIST could not be downloaded \(127.0.0.1 ") as refusal:
            sources.resolve(config("medmnist", root), limits=SHORT)
    assert "\n" not in str(refusal.value)
    assert list(root.iterdir()) == []
    locks = list((tmp_path / "home" / "locks").iterdir())
    for lock in locks:
        FileLock(lock, timeout=0).acquire()
    content = served("")
    with serving(sends(content)) as url:
        served(url)
        assert sources.resolve(config("medmnist", root), limits=SHORT).source.kind == "medmnist"
    assert locks == list((tmp_path / "home" / "locks").iterdir())


def test_auto_takes_the_stand_in_for_a_silent_server_and_says_why(
    tmp_path: Path, served: Callable[[str], bytes]
) -> None:
    said: list[str] = []
    with serving(silent) as url:
        served(url)
        data = sources.resolve(config("auto", tmp_path / "root"), said.append, SHORT)
    assert data.source.kind == "stand-in"
    assert "did not answer" in " ".join(said[0].replace("#", " ").split())


def packed(files: dict[str, bytes]) -> bytes:
    """A .tar.gz with these files in a folder, and one file that nobody asked for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in {**files, "../outside": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["gz", "tar.gz"])
def test_packed_files_are_unpacked_and_checked(form: str, tmp_path: Path) -> None:
    name = "MNIST/raw/images" if form == "gz" else "batches/images"
    official_file = OfficialFile(name, hashlib.md5(CONTENT).hexdigest())
    good = gzip.compress(CONTENT) if form == "gz" else packed({name: CONTENT})

    def spec(url: str) -> DatasetSpec:
        where = url.replace("bloodmnist.npz", f"images.{form}")
        return replace(DATASETS["mnist"], urls=(where,), files=(official_file,))

    for content in (
        good[: len(good) // 2],
        b"no archive",
        packed({"other": CONTENT}) if form == "tar.gz" else good[:9],
    ):
        with serving(sends(content)) as url, pytest.raises(UserError, match=f"a damaged images.{form}"):
            official.download(spec(url), tmp_path / "root", SHORT)
        assert list((tmp_path / "root").iterdir()) == []
    with serving(sends(good)) as url:
        official.download(spec(url), tmp_path / "root", SHORT)
    found = [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    assert found == [tmp_path / "root" / name]
    assert found[0].read_bytes() == CONTENT
    assert not (tmp_path / "outside").exists()
