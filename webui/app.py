"""Where the parts meet: settings -> executor -> page and API -> server."""

import errno
import hashlib
import logging
import os
import shutil
import signal
import socket
import stat
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlencode, urlsplit

from webui.compat import (
    noting_tunnel_trouble,
    remembering_classes,
    with_connections,
    with_routes_made_once,
    without_second_looks,
    without_web_application,
)
from webui.compat.late_torch import make_meta_functions_late
from webui.core.allowance import check_names
from webui.core.catalog import Catalog
from webui.core.disk import sweep
from webui.core.errors import RequestError
from webui.core.hosting import Hosting
from webui.core.keys import read_keys
from webui.core.settings import DEFAULT_PORT, GUEST, Settings
from webui.core.visitor import OWNER, Visitor
from webui.jobs.executor import LocalExecutor
from webui.jobs.filters import Filters
from webui.jobs.protocols import Executor
from webui.jobs.store import Store
from webui.jobs.visitors import VisitorsExecutor
from webui.jobs.workers.places import Place, check_together, devices_for, places_of
from webui.jobs.workers.process import ProcessWorker
from webui.jobs.workers.thread import ThreadWorker
from webui.jobs.workers.worker import Fleet, Worker
from webui.process import exit_process, importing, load_torch_ahead
from webui.setup.cards import look
from webui.workspace.preferences import PreferenceStore
from webui.workspace.workspace import Workspaces

if TYPE_CHECKING:
    from fastapi import APIRouter
    from starlette.types import ASGIApp

    from webui.api.host import Host
    from webui.api.login import Login
    from webui.api.streams import Streams

log = logging.getLogger(__name__)

PORTS_TRIED = 50
HOUR_S = 3600
STALE_CACHE_S = 24 * 3600
# The end comes within 5 s of the signal. A step or an answer that takes longer is left behind.
DEVICE_WAIT_S = 2.5
ANSWERS_WAIT_S = 1


def go_offline() -> None:
    """Keeps every library off the network and their caches in our own folder; call before they are imported."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        os.environ.setdefault(name, "1")
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")


def make_executor(settings: Settings, kept_in: Path | None = None) -> LocalExecutor:
    """The executor these settings ask for, which keeps its jobs in a file where one is given; raises RequestError for
    devices that are not there."""
    go_offline()
    make_meta_functions_late()
    executor = LocalExecutor(settings, make_workers(settings), Store(kept_in) if kept_in else None)
    executor.start()
    return executor


def make_workers(settings: Settings) -> Mapping[str, Worker] | Fleet:
    """Those that these settings ask for, by their names; raises RequestError for devices that are not there, and for a
    cluster that cannot be reached."""
    check_together(settings)
    if settings.ray:
        from webui.jobs.workers.cluster import Cluster

        return Cluster(settings)
    if places := find_places(settings):
        return {place.name: ProcessWorker(settings.engine_options, place) for place in places}
    return {"": ThreadWorker(settings.engine_options)}


def name_workers(settings: Settings) -> list[str]:
    """Those that these settings ask for, each with what it is, for people; raises RequestError as ``make_workers``."""
    if settings.ray:
        from webui.jobs.workers.cluster import name_cluster

        return name_cluster(settings)
    return [_name(place) for place in find_places(settings)]


def _name(place: Place) -> str:
    threads = place.variables.get("OMP_NUM_THREADS") or os.environ.get("OMP_NUM_THREADS", "")
    return (
        f"{place.name} ({threads} thread{'s' * (threads != '1')})" if place.device == "cpu" and threads else place.name
    )


def find_places(settings: Settings) -> tuple[Place, ...]:
    """Where the processes are that these settings ask for, none for a thread of this one; raises RequestError."""
    devices = settings.devices
    if settings.workers > 1:
        if devices:
            raise RequestError("workers: the list of devices says how many there are", field="workers")
        vendor = "Intel" if settings.device == "xpu" else "NVIDIA"
        devices = devices_for(settings.workers, settings.device, sum(card.vendor == vendor for card in look().cards))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return places_of(devices, cores, os.environ)


def serve(settings: Settings) -> NoReturn:
    """Runs the page and the API until a signal, and ends the process; the engine loads behind the open page."""
    local, workspaces, streams, blocks = _open(settings)
    local.warm_up()
    threading.Thread(target=_drop_unused, args=(workspaces, local), name="workspaces", daemon=True).start()
    _wait_for_signal()
    _stop(local, streams, blocks)


@importing()
def _open(settings: Settings) -> "tuple[LocalExecutor, Workspaces, Streams, Any]":
    """Page and API, which answer from here on; says where they are."""
    go_offline()
    port = choose_port(settings)
    cache_dir = _shown_dir(settings)
    os.environ["GRADIO_TEMP_DIR"] = str(cache_dir)
    from webui.api.connections import Sockets, raise_file_limit
    from webui.api.errors import ERROR_ANSWERS
    from webui.api.guard import Guard
    from webui.api.held import Held
    from webui.api.host import Host
    from webui.api.hosts import AllowedHosts
    from webui.api.login import SESSION_S, Login
    from webui.api.seen import Seen
    from webui.api.streams import Streams
    from webui.api.visitors import Visitors
    from webui.ui import layout
    from webui.ui.application import Application, name_no_host

    if not (settings.ray or find_places(settings)):  # this process draws
        make_meta_functions_late()
        load_torch_ahead()
    threading.Thread(target=sweep, args=(settings.written_dirs,), name="sweep", daemon=True).start()
    preferences, hosting = PreferenceStore(settings, settings.preferences_path), Hosting(settings.hosting_path)
    workspaces = Workspaces(settings.data_dir, settings.out, settings.guest_presets, cache_dir, preferences=preferences)
    local = LocalExecutor(settings, make_workers(settings), Store(settings.queue_path), workspaces, hosting)
    _prepare_for_guests(settings, local.catalog(), workspaces)
    executor = VisitorsExecutor(local, hosting if settings.has_guests else None, workspaces.sizes)
    hosts, streams = AllowedHosts(settings), Streams()
    sockets, seen = Sockets(raise_file_limit()), Seen()
    held = Held(cache_dir, hosting=hosting, sockets=sockets.most)
    keys = read_keys(settings.keys_path, settings.owner_key) if settings.has_guests else None

    def guard(inner: "ASGIApp", app: Application) -> "ASGIApp":
        visitors = Visitors(keys, login, len(settings.auth) > 1, settings.root_path, hosting, seen)
        return Guard(inner, hosts, login, visitors, cache_dir, streams, held)

    app = Application(guard, SESSION_S, exception_handlers=dict(ERROR_ANSWERS))
    login = Login(app, passphrase=settings.passphrase)
    host = Host(hosting, executor, seen, workspaces.sizes) if settings.has_guests else None
    if settings.root_path:
        name_no_host()
    with remembering_classes(), with_routes_made_once():
        for router in routers(settings, executor, workspaces, login, host):
            app.include_router(router)
        with without_web_application():  # launch makes the one that serves
            blocks = layout.build_page(executor.for_pages(), workspaces.here, lambda: preferences.now.pages)
            blocks.queue(api_open=False, max_size=None, default_concurrency_limit=None)
        with with_connections(sockets.protocol()), without_second_looks(blocks), noting_tunnel_trouble() as troubles:
            url, share_url = layout.launch(blocks, app, settings, port)
    if share_url:
        hosts.add(urlsplit(share_url).hostname or "")
    elif settings.share:
        executor.notice = f"There is no public link: {': '.join(troubles) or 'the tunnel was refused'}."
    owners_url = f"{url}?{urlencode({'owner': keys.owner_key})}" if keys else url
    guests = _for_the_host(settings, owners_url, share_url, executor.notice) if keys else ()
    print("\n".join([f"Darkroom is at {url}", *guests]), flush=True)
    if settings.open_browser and _has_display():
        webbrowser.open(owners_url)
    return local, workspaces, streams, blocks


def _stop(local: LocalExecutor, streams: "Streams", blocks: Any) -> NoReturn:
    print("Stopping ...", flush=True)
    local.close(DEVICE_WAIT_S)  # jobs end first, so that who watches them is told
    streams.end()
    blocks.server.config.timeout_graceful_shutdown = ANSWERS_WAIT_S
    blocks.close(verbose=False)
    exit_process(0)


def _for_the_host(settings: Settings, owners_url: str, share_url: str | None, notice: str) -> list[str]:
    """What whoever starts a server with guests is told: how they come in themselves, and how guests do."""
    lines = [f"You come in as the owner at {owners_url}"]
    if share_url:
        lines.append(f"Guests come in at {share_url}")
    elif notice:
        lines.append(f"{notice} The page here goes on.")
    if settings.passphrase:
        lines.append(f"Guests log in as {GUEST} with the passphrase {settings.passphrase}")
    else:
        lines.append("Guests log in with --auth's accounts." if settings.auth else "Guests need no login.")
    return lines


def _prepare_for_guests(settings: Settings, catalog: Catalog, workspaces: Workspaces) -> None:
    """Raises RequestError where guests are to use something that is not there."""
    if settings.has_guests:
        Filters(settings.filters_dir).prepare()
    with_models = catalog.text_encoders, catalog.vaes, catalog.upscalers, catalog.finders, catalog.controls
    check_names("model", settings.guest_models or (), catalog.models, *with_models)
    check_names("LoRA", settings.guest_loras or (), catalog.loras, catalog.embeddings)
    for name in settings.guest_presets or ():
        workspaces.of(OWNER).presets.choose(name)


def _drop_unused(workspaces: Workspaces, local: LocalExecutor) -> None:
    while True:
        for visitor_id in workspaces.drop_unused():
            local.forget(Visitor(visitor_id))
            log.info("dropped the workspace of a guest who was not here for a week: %s", visitor_id)
        time.sleep(HOUR_S)


def routers(*parts: Any) -> list["APIRouter"]:
    """Our own routes, and what describes them."""
    from webui.api.description import description_router

    own = [*_own_routers(*parts)]
    return [*own, description_router(own)]


def _own_routers(
    settings: Settings, executor: Executor, workspaces: Workspaces, login: "Login", host: "Host | None" = None
) -> Iterator["APIRouter"]:
    """Each over what is there for whoever asks; those of the login where there is one, of the host where guests are."""
    from webui.api.a1111 import a1111_router
    from webui.api.additions import additions_router
    from webui.api.controlnet import controlnet_router
    from webui.api.controls import controls_router
    from webui.api.finders import finders_router
    from webui.api.history import history_router
    from webui.api.host import host_router
    from webui.api.info import info_router
    from webui.api.installable import installable_router
    from webui.api.jobs import jobs_router
    from webui.api.languages import languages_router
    from webui.api.login import login_router
    from webui.api.loras import loras_router
    from webui.api.metrics import metrics_router
    from webui.api.models import models_router
    from webui.api.preferences import preferences_router
    from webui.api.presets import presets_router
    from webui.api.tokens import tokens_router
    from webui.api.words import words_router
    from webui.api.workspace import workspace_router
    from webui.api.zips import Zips
    from webui.library.adding.additions import Additions

    for make in (
        controlnet_router,
        finders_router,
        info_router,
        loras_router,
        metrics_router,
        models_router,
        words_router,
    ):
        yield make(executor)
    yield tokens_router(executor, workspaces.here)
    yield controls_router(executor, workspaces.here)
    yield installable_router()
    yield languages_router()
    yield additions_router(executor, Additions(settings))
    yield jobs_router(executor, workspaces.here)
    yield presets_router(executor, workspaces.here)
    if workspaces.preferences:
        yield preferences_router(workspaces.preferences)
    zips = Zips()
    yield history_router(workspaces.here, zips)
    yield workspace_router(executor, workspaces, zips)
    yield a1111_router(executor, settings.model, lambda: workspaces.here().presets)
    if settings.accounts:
        yield login_router(login, settings.root_path)
    if host:
        yield host_router(host)


def choose_port(settings: Settings) -> int:
    """The port to listen on. A taken default moves on to the next free one; a taken ``--port`` is an error."""
    wanted = settings.port or DEFAULT_PORT
    free = next((p for p in range(wanted, min(wanted + PORTS_TRIED, 65536)) if _is_free(settings.host, p)), None)
    if free == wanted:
        return wanted
    offer = f"; {free} is free" if free else ""
    if settings.port or free is None:
        raise RequestError(f"port {wanted} is already in use{offer}: --port {free or 'NUMBER'}", field="port")
    print(f"Port {wanted} is already in use; using {free}.", file=sys.stderr, flush=True)
    return free


def _is_free(host: str, port: int) -> bool:
    """Whether nobody listens there; RequestError where this machine or this user may not."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        if os.name != "nt":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE or os.name == "nt" and error.errno == errno.EACCES:
                return False
            if error.errno == errno.EACCES:
                raise RequestError(
                    f"port {port} is not for this user to take: {error.strerror}", field="port"
                ) from None
            raise RequestError(
                f"--host {host} is not an address of this machine: {error.strerror}", field="host"
            ) from None
        return True


def _private_cache(folder: Path) -> Path:
    """The folder for files that pages show, readable by this user alone, without what an older run left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError:  # a read-only data folder: pictures can still be shown
        return Path(tempfile.mkdtemp(prefix="darkroom-"))
    for entry in (*folder.iterdir(), *folder.glob("guests/*/*")):
        if entry.name == "guests":
            continue
        if time.time() - entry.stat().st_mtime > STALE_CACHE_S:
            shutil.rmtree(entry, ignore_errors=True) if entry.is_dir() else entry.unlink(missing_ok=True)
    return folder


def _shown_dir(settings: Settings) -> Path:
    """The folder for files that pages show, as the page's addresses name it."""
    folder = _private_cache(settings.cache_dir / "gradio")
    return plainly_named(folder) if settings.has_guests else folder


def plainly_named(folder: Path, below: Path | None = None) -> Path:
    """A link to the folder, whose path tells guests nothing of this machine: addresses of uploads and pictures hold it.

    It is the same after a restart, and lies in a folder that is this user's alone. The folder itself where there can
    be no such link.
    """
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    link = (below or Path(tempfile.gettempdir())) / f"darkroom-{digest}" / "files"
    try:
        link.parent.mkdir(mode=0o700, exist_ok=True)
        about = link.parent.lstat()
        if not stat.S_ISDIR(about.st_mode) or about.st_mode & 0o022 or about.st_uid != os.getuid():
            return folder  # somebody else's
        if not (link.is_symlink() and link.readlink() == folder):
            link.unlink(missing_ok=True)
            link.symlink_to(folder, target_is_directory=True)
    except (AttributeError, OSError):  # no users as POSIX has them; no links
        return folder
    return link


def _has_display() -> bool:
    return sys.platform in ("win32", "darwin") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _wait_for_signal() -> None:
    stop = threading.Event()

    def on_signal(_number: int, _frame: object) -> None:
        if stop.is_set():  # the second one means now
            os._exit(130)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, on_signal)
    while not stop.wait(0.5):
        pass
