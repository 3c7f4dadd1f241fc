"""Fetches one file over HTTP within time limits, and says in one line why it could not."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fl_ppae.steps import step

_CHUNK = 1 << 16
_MEGABYTE = 1e6
# The first that fits counts.
_FAULTS: dict[type[Exception], str] = {
    socket.gaierror: "has no known address; is this machine online?",
    ssl.SSLCertVerificationError: "has no valid certificate",
    ConnectionRefusedError: "refused the connection",
    ConnectionError: "closed the connection after {so_far}",
    IncompleteRead: "closed the connection after {so_far}",
    HTTPException: "does not answer in HTTP",
}


@dataclass(frozen=True)
class Limits:
    """When a download is given up.

    Attributes:
        seconds: how long a server may send less than `slowest` allows, from the lookup of its name on.
        slowest: bytes a second, on average over `seconds`.
        largest: bytes of a file.
    """

    seconds: float = 20.0
    slowest: int = 2_000
    largest: int = 2**30


DEFAULT_LIMITS = Limits()


class DownloadError(Exception):
    """A file that could not be fetched; the message names who is to blame, and for what."""


def fetch(url: str, path: Path, title: str, limits: Limits = DEFAULT_LIMITS) -> None:
    """Fetch `url` into `path`, which is incomplete if this raises. `title` names the file in progress.

    Raises:
        DownloadError: the server, the network, a proxy or the disk failed, or a limit was passed.
    """
    transfer = _Transfer(url, path, limits)
    # In a thread, because neither a name lookup nor a slow header can be interrupted.
    thread = threading.Thread(target=transfer.run, daemon=True)
    step(f"waiting for {transfer.peer}")
    thread.start()
    enough = limits.slowest * limits.seconds
    seen, since = 0, time.monotonic()
    try:
        while thread.is_alive():
            thread.join(min(0.1, limits.seconds / 10))
            if transfer.received - seen >= enough:
                seen, since = transfer.received, time.monotonic()
            elif time.monotonic() - since > limits.seconds and thread.is_alive():
                raise DownloadError(transfer.too_slow())
            arriving = f"downloading {title} from {transfer.peer}: {transfer.so_far()}"
            step(arriving if transfer.received else f"waiting for {transfer.peer}")
    finally:
        transfer.stopped = True
    if transfer.error is not None:
        raise transfer.error


def route(url: str) -> tuple[str, str, int]:
    """Who is asked for `url` first: its name for messages, its host and its port. It may be a proxy.

    Raises:
        ValueError: the address of the proxy is not one.
    """
    wanted = urlsplit(url)
    proxy = urllib.request.getproxies().get(wanted.scheme, "")
    if not proxy or urllib.request.proxy_bypass(wanted.netloc):
        host = wanted.hostname or ""
        return host, host, wanted.port or (443 if wanted.scheme == "https" else 80)
    wrong = f"{wanted.scheme}_proxy is not an address such as http://proxy.example:3128"
    try:
        found = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        through, port = found.hostname, found.port or (443 if found.scheme == "https" else 80)
    except ValueError:
        raise ValueError(wrong) from None
    if not through:
        raise ValueError(wrong)
    return f"the proxy {through}:{port}", through, port  # never the whole address, which may hold a password


def host_answers(url: str, seconds: float = 5.0) -> bool:
    """Whether the host of `url`, or the proxy on the way to it, accepts a connection within `seconds`."""
    try:
        peer, host, port = route(url)
    except ValueError:
        return False
    answered = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=seconds):
            answered.set()

    step(f"waiting for {peer}")
    # In a thread, because a name lookup has no timeout.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(seconds)
    return answered.is_set()


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects as usual, after `check` has seen where each leads to."""

    def __init__(self, check: Callable[[str], None]) -> None:
        self._check = check

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """As in the base class."""
        self._check(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Transfer:
    """One download in a thread of its own. `peer` is who must answer next, and changes with a redirect."""

    def __init__(self, url: str, path: Path, limits: Limits) -> None:
        self._url, self._path, self._limits = url, path, limits
        self._total: int | None = None
        self.peer = urlsplit(url).hostname or url
        self.received = 0
        self.stopped = False
        self.error: DownloadError | None = None

    def run(self) -> None:
        """Fetch the file; `error` says what went wrong."""
        try:
            self._follow(self._url)
            request = urllib.request.Request(self._url, headers={"User-Agent": "fl-ppae"})
            opener = urllib.request.build_opener(_Redirects(self._follow))
            with opener.open(request, timeout=self._limits.seconds) as response:
                self._receive(response)
        except DownloadError as error:
            self.error = error
        except (OSError, HTTPException, ValueError) as error:
            self.error = DownloadError(self._in_words(error))

    def too_slow(self) -> str:
        """Why the limit of time was passed."""
        seconds = f"{self._limits.seconds:g} s"
        if not self.received:
            return f"{self.peer} did not answer within {seconds}"
        slow = f"less than {self._limits.slowest * self._limits.seconds / 1000:.3g} kB in {seconds}"
        return f"{self.peer} is too slow: {slow}, after {self.so_far()}"

    def so_far(self) -> str:
        """How much has arrived."""
        if self._total is None:
            return f"{self.received / _MEGABYTE:.1f} MB"
        return f"{self.received / _MEGABYTE:.1f} of {self._total / _MEGABYTE:.1f} MB"

    def _follow(self, url: str) -> None:
        if urlsplit(url).scheme not in ("https", urlsplit(self._url).scheme):
            raise DownloadError(f"{self.peer} redirects to an address that is not https")
        self.peer = route(url)[0]

    def _receive(self, response: Any) -> None:
        if response.headers.get_content_type() == "text/html":
            raise DownloadError(f"{self.peer} answered with a page instead of the file")
        length = response.headers.get("Content-Length", "")
        self._total = int(length) if length.isdecimal() else None
        try:
            file = self._path.open("wb")
        except OSError as error:
            raise DownloadError(_unwritten(self._path, error)) from None
        with file:
            while not self.stopped and (chunk := response.read1(_CHUNK)):
                self.received += len(chunk)
                if self.received > self._limits.largest:
                    most = f"{self._limits.largest / _MEGABYTE:,.0f} MB"
                    raise DownloadError(f"{self.peer} sends more than {most}, more than any official file")
                try:
                    file.write(chunk)
                    file.flush()
                except OSError as error:
                    raise DownloadError(_unwritten(self._path, error)) from None
        if self._total is not None and self.received < self._total:
            raise DownloadError(f"{self.peer} closed the connection after {self.so_far()}")

    def _in_words(self, error: Exception) -> str:
        if isinstance(error, urllib.error.HTTPError):
            if str(error.reason).startswith(_Redirects.inf_msg):
                return f"{self.peer} redirects in a circle"
            return f"{self.peer} answered {error.code} {error.reason}"
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return self.too_slow()
        for kind, words in _FAULTS.items():
            if isinstance(cause, kind):
                return f"{self.peer} {words}".format(so_far=self.so_far())
        return str(cause) if isinstance(cause, ValueError) else f"{self.peer}: {cause}"


def _unwritten(path: Path, error: OSError) -> str:
    return f"{path.parent} can't be written: {error.strerror}"
