"""How this process runs: one frozen value made from flags and environment, handed to whoever needs it."""

import os
import re
from datetime import date
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ByteSize, ConfigDict, Field

from webui.core.allowance import EVERYTHING, Allowance
from webui.core.engine_options import EngineOptions
from webui.core.filenames import FILENAME, FileFormat, check_filename
from webui.core.visitor import Visitor

DEFAULT_PORT = 7860
GUEST = "guest"
DEVICES = ("auto", "cuda", "xpu", "mps", "cpu")
DTYPES = ("auto", "float32", "bfloat16", "float16")
MOST_WORKERS, MOST_TOGETHER = 64, 32
NETLOC = re.compile(r"(?:\[(?P<ipv6>[0-9A-Fa-f:.]+)\]|(?P<name>[^\s:/?#@,\[\]\\]+))(?::(?P<port>\d{1,5}))?")
MEMORY_PLANS = ("auto", "resident", "offload", "blocks", "sequential")


def default_data_dir() -> Path:
    """``WEBUI_DATA_DIR``, else ``data/`` beside launch.py, else ``data/`` in the current folder."""
    if chosen := os.environ.get("WEBUI_DATA_DIR"):
        return Path(chosen)
    checkout = Path(__file__).resolve().parents[2]
    return (checkout if (checkout / "launch.py").exists() else Path.cwd()) / "data"


def is_offline() -> bool:
    """Whether the environment says that nothing is to be fetched, as Hugging Face's libraries read it."""
    return os.environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def split_netloc(netloc: str) -> tuple[str, str]:
    """Name in small letters and port, as text, of ``name:port`` or ``[::1]:port``; both empty where it is neither."""
    match = NETLOC.fullmatch(netloc.strip())
    if match is None:
        return "", ""
    return (match["ipv6"] or match["name"]).lower().removesuffix("."), match["port"] or ""


def check_host_name(text: str) -> str:
    """The name in small letters; raises ValueError where it is an address with more in it, or no name."""
    name, port = split_netloc(text)
    if not name or port:
        raise ValueError(f"{text[:80]!r} is not a bare host name such as example.com")
    return name


def check_root_path(text: str) -> str:
    """The path with a slash before it and none behind, "" for none; raises ValueError where it is not plain."""
    path = text.strip("/")
    if not re.fullmatch(r"(?:[\w.~-]+(?:/[\w.~-]+)*)?", path, re.ASCII) or {".", ".."} & {*path.split("/")}:
        raise ValueError(f"{text[:80]!r} is not a path such as /darkroom")
    return f"/{path}" if path else ""


def check_owner_key(text: str) -> str:
    """The key as it is; raises ValueError where a header or an address could not carry it."""
    if not re.fullmatch(r"[!-~]{1,200}", text):
        raise ValueError("must be printable ASCII without blanks, at most 200 characters")
    return text


class Settings(BaseModel):
    """Flags of ``serve`` and ``generate``. Paths are made absolute once, here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: str = "127.0.0.1"
    port: int | None = Field(default=None, ge=1, le=65535)
    open_browser: bool = True
    share: bool = False
    auth: tuple[tuple[str, str], ...] = ()
    passphrase: str = ""
    guests: bool = False
    owner_key: Annotated[str, AfterValidator(check_owner_key)] | None = None
    guest_models: tuple[str, ...] | None = None
    guest_loras: tuple[str, ...] | None = None
    guest_presets: tuple[str, ...] | None = None
    allow_host: tuple[Annotated[str, AfterValidator(check_host_name)], ...] = ()
    root_path: Annotated[str, AfterValidator(check_root_path)] = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    model: str = "demo"
    device: Literal["auto", "cuda", "xpu", "mps", "cpu"] = "auto"
    workers: int = Field(default=1, ge=1, le=MOST_WORKERS)
    devices: tuple[str, ...] = Field(default=(), max_length=MOST_WORKERS)
    ray: str | None = Field(default=None, min_length=1, max_length=300)
    ray_files: ByteSize | None = None
    together: int = Field(default=1, ge=1, le=MOST_TOGETHER)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    data_dir: Path = Field(default_factory=default_data_dir)
    models_dir: tuple[Path, ...] = ()
    offline: bool = Field(default_factory=is_offline)
    memory: Literal["auto", "resident", "offload", "blocks", "sequential"] = "auto"
    lora_cache: ByteSize | None = None
    model_cache: ByteSize | None = None
    compile: bool = False
    cuda_graphs: bool = False
    cpu_kernels: bool = True
    out: Path | None = None
    format: FileFormat = "png"
    filename: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(check_filename)] = FILENAME

    def model_post_init(self, _context: object) -> None:
        object.__setattr__(self, "data_dir", self.data_dir.expanduser().absolute())
        object.__setattr__(self, "out", self.out.expanduser().absolute() if self.out else None)
        object.__setattr__(self, "models_dir", tuple(path.expanduser().absolute() for path in self.models_dir))

    def output_dir(self, task: str) -> Path:
        """Where finished pictures go: ``out`` itself when given, else ``<data_dir>/outputs/<task>/<date>``."""
        return self.out or self.outputs_dir / task / date.today().isoformat()

    @property
    def outputs_dir(self) -> Path:
        """The finished pictures of all tasks and days."""
        return self.data_dir / "outputs"

    @property
    def written_dirs(self) -> tuple[Path, ...]:
        """All folders that files are written to."""
        models = (self.data_dir / "models", self.data_dir / "embeddings")
        own = (self.outputs_dir, self.start_dir, self.presets_dir, self.cache_dir, *models)
        return (*own, self.out) if self.out else own

    @property
    def has_guests(self) -> bool:
        """Whether whoever has not the owner's key is a guest."""
        return self.guests or self.is_reached

    def allowance(self, visitor: Visitor) -> Allowance:
        """What the visitor may draw with."""
        return EVERYTHING if visitor.is_owner else Allowance(self.guest_models, self.guest_loras, usable=True)

    @property
    def accounts(self) -> tuple[tuple[str, str], ...]:
        """Names and passwords to log in with: those of ``auth``, or ``guest`` with the passphrase that was made."""
        return self.auth or (((GUEST, self.passphrase),) if self.passphrase else ())

    @property
    def is_reached(self) -> bool:
        """Whether it can be reached from other machines."""
        return self.share or not is_loopback(self.host)

    @property
    def keys_path(self) -> Path:
        """Where the owner's key and the secret behind the guests' cookies are kept."""
        return self.data_dir / "keys.json"

    @property
    def hosting_path(self) -> Path:
        """Where what the host decides is kept."""
        return self.data_dir / "hosting.json"

    @property
    def preferences_path(self) -> Path:
        """Where what the owner chooses on the page is kept."""
        return self.data_dir / "settings.json"

    @property
    def filters_dir(self) -> Path:
        """Where the host says what is not drawn for guests."""
        return self.data_dir / "filters"

    @property
    def start_dir(self) -> Path:
        """Where start pictures and masks are kept, which recipes name by their hash."""
        return self.data_dir / "start-pictures"

    @property
    def queue_path(self) -> Path:
        """Where a server keeps its jobs."""
        return self.data_dir / "queue.sqlite3"

    @property
    def presets_dir(self) -> Path:
        """Where people's own presets are."""
        return self.data_dir / "presets"

    @property
    def cache_dir(self) -> Path:
        """What may be deleted at any time."""
        return self.data_dir / "cache"

    @property
    def engine_options(self) -> EngineOptions:
        """What of them an engine is told."""
        return EngineOptions(
            cache_dir=self.cache_dir,
            device=self.device,
            dtype=self.dtype,
            memory=self.memory,
            lora_cache_bytes=self.lora_cache,
            model_cache_bytes=self.model_cache,
            compile=self.compile,
            cuda_graphs=self.cuda_graphs,
            cpu_kernels=self.cpu_kernels,
        )
