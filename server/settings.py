"""Settings of the server: CLI > environment > YAML file > default, each value with its origin.

`load_settings` merges the four layers into one validated `Settings`. Environment names have the prefix `INCOMES_`;
a secret may instead be named by file, `INCOMES_<FIELD>_FILE`. An unknown key in the file is an error.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from incomes_server.auth.keys import DEFAULT_PROJECT, ApiKey, KeyRing
from incomes_server.auth.master_key import MasterKey, MasterSource, keys_of_command, parse_master_keys
from incomes_server.auth.quotas import ProjectQuotas, Quotas
from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    IPvAnyAddress,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from incomes_plugin.errors import InvalidValue

ENV_PREFIX = "INCOMES_"
SECRET_FIELDS = ("api_keys", "edit_store", "encryption_key", "ray_token")
RESERVE = 8
"""One part of the pool in so many stays free of new edits: a change takes room before what it replaces leaves it."""


def default_store_url() -> str:
    """SQLite file in the user's data folder."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return f"sqlite:///{data / 'incomes' / 'edits.db'}"


def is_loopback(host: str) -> bool:
    """True when nothing outside this machine can reach `host`; IPv4 addresses may come in their IPv6 form."""
    if host == "localhost":
        return True
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def without_password(url: str) -> str:
    """A URL as it may be shown."""
    return re.sub(r"//[^/@]*@", "//****@", url)


def _size_bytes(value: Any) -> int:
    """Bytes of `512MiB`, `4GiB`, `1GB` or a number; a plain int, which unlike `ByteSize` travels to the engine."""
    return int(TypeAdapter(ByteSize).validate_python(value))


class Settings(BaseSettings):
    """Every setting of `incomes serve`; `docs/settings.md` lists them, a test compares."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    model: str = Field("default", description="`default`, a folder, a hub id, or a folder made by `incomes adapt`")
    adapter: str | None = Field(None, description="folder of the model's edit adapter, if MODEL does not say it")
    share_prefix_cache: bool = Field(
        False, description="projects share the KV blocks of equal prompts; their timing then tells what others asked"
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="origins of web pages that may call both ports, or `*`; comma-separated in the environment"
    )
    served_model_name: str = Field("incomes", description="model name in the OpenAI API")
    host: str = Field("127.0.0.1", description="address of the chat port")
    port: int = Field(8000, ge=1, le=65535, description="chat port")
    admin_host: str = Field("127.0.0.1", description="address of the admin port")
    admin_port: int = Field(8001, ge=1, le=65535, description="admin port")
    edit_store: str = Field(
        default_factory=default_store_url, description="SQLAlchemy URL of the edit store", validate_default=True
    )
    join: bool = Field(False, description="use the edit store that runs at `ray_address`, and never start one")
    gist_storage: str | None = Field(
        None, description="URL of an object storage for gists, e.g. s3://bucket/gists; default: in the edit store"
    )
    api_keys: Annotated[tuple[ApiKey, ...], NoDecode] = Field(
        (), description="`project:key`, or a bare key for the project `default`; comma-separated in the environment"
    )
    encryption_key: Annotated[tuple[MasterKey, ...], NoDecode] = Field(
        (), description="master key of the edit store, 32 bytes in base64; former ones behind it with commas; none: off"
    )
    encryption_key_command: str | None = Field(
        None,
        description="command that prints the master key, instead of `encryption_key`; run when the store starts",
    )
    operator_project: str | None = Field(
        None,
        description="project whose `admin` keys make projects and their keys; default: the only one with a key here",
    )
    default_edit_set: str = Field("default", description="edit set of requests that name none")
    replica_name: str = Field(
        "replica-0", description="name of this engine among the replicas; in a cluster by default host name and port"
    )
    ray_address: str | None = Field(
        None,
        validate_default=True,
        description="`host:port` of the Ray cluster whose engines share one edit store; default: a private Ray",
    )
    ray_node_ip: IPvAnyAddress | None = Field(
        None, description="address by which the Ray node of this machine is known; for machines with several"
    )
    ray_namespace: str = Field("incomes", min_length=1, description="namespace of the edit store in the Ray cluster")
    ray_token: str | None = Field(None, description="token of the Ray cluster; default: what Ray finds by itself")
    pool_bytes: Annotated[int, BeforeValidator(_size_bytes)] = Field(
        4 << 30, ge=1, description="host memory for the gists of all edit sets, e.g. 512MiB or 4GiB"
    )
    index_from_edits: int = Field(
        50_000, ge=1, description="edits of an edit set from which on routing on a CPU goes through an index"
    )
    max_edits_per_project: int = Field(100_000, ge=1, description="edits that a project may have")
    max_gist_bytes_per_project: int | None = Field(
        None, ge=1, description="bytes of gists that a project may have; default: an equal part of the pool"
    )
    max_running_requests_per_project: int = Field(256, ge=1, description="generations of a project that may run")
    max_chat_requests_per_minute_per_project: int | None = Field(
        None, ge=1, description="generations that a project may begin in a minute; default: any number"
    )
    max_writes_per_minute_per_project: int | None = Field(
        None, ge=1, description="writes that a project may send to the admin port in a minute; default: any number"
    )
    compress_here: bool = Field(
        True, description="this engine compresses edits too; false: only those of `incomes compress` do"
    )
    compression_batch: int = Field(32, ge=1, le=1024, description="edits per capture batch")
    verbatim_vectors: bool = Field(
        False, description="make vectors of verbatim edits, with a second copy of the base in host memory"
    )
    verbatim_threads: int = Field(1, ge=1, description="CPU threads that make vectors, behind everything that serves")
    verbatim_texts: int = Field(16, ge=1, le=1024, description="texts that get vectors at the same time")
    verbatim_steps: int = Field(
        600, ge=1, description="steps of the search for one number of vectors, before it gets more or is given up"
    )
    verbatim_capacity: Path | None = Field(
        None, description="`verbatim-capacity.json` of `incomes capacity` for the base; default: 60 nats a vector"
    )
    queue_limit: int = Field(4096, ge=1, description="edits the compression queue holds before it answers 429")
    import_batch: int = Field(256, ge=1, le=4096, description="lines of a bulk import written in one transaction")
    max_import_bytes: int = Field(
        256 << 20, ge=1, description="largest body of a bulk import, and largest uploaded file"
    )
    max_file_bytes_per_project: int = Field(
        1 << 30, ge=1, description="bytes of uploaded files that a project may have waiting"
    )
    max_body_bytes: int = Field(64 << 20, ge=1, description="largest body of a request on the chat port")
    body_timeout_s: float = Field(60.0, gt=0, description="seconds in which the whole body of a request must arrive")
    header_timeout_s: float = Field(10.0, gt=0, description="seconds in which the head of a request must arrive")
    max_wait_s: float = Field(600.0, gt=0, description="upper limit of `timeout_s` in a request")
    keep_history_s: float = Field(
        30 * 86_400.0, ge=0, description="seconds that snapshots without a label are remembered when newer ones came"
    )
    shutdown_timeout_s: float = Field(10.0, ge=0, description="seconds running answers get at shutdown")
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$", description="log level of the server")
    log_format: str = Field(
        "text", pattern="^(text|json)$", description="`json`: one object a line, and a line for each request"
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _parse_keys(cls, value: Any) -> Any:
        items = value.replace("\n", ",").split(",") if isinstance(value, str) else value
        return tuple(ApiKey.parse(item) if isinstance(item, str) else item for item in items if item)

    @field_validator("encryption_key", mode="before")
    @classmethod
    def _parse_master_keys(cls, value: Any) -> Any:
        return parse_master_keys(value) if isinstance(value, str) else value

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _parse_origins(cls, value: Any) -> Any:
        items = value.split(",") if isinstance(value, str) else value
        return tuple(item.strip() for item in items if item)

    @field_validator("api_keys")
    @classmethod
    def _one_project_a_key(cls, keys: tuple[ApiKey, ...]) -> tuple[ApiKey, ...]:
        projects: dict[str, str] = {}
        for key in keys:
            if projects.setdefault(key.key, key.project) != key.project:
                raise ValueError(f"one key for two projects, {projects[key.key]} and {key.project}; give each its own")
        return keys

    @field_validator("gist_storage")
    @classmethod
    def _beside_a_server(cls, url: str | None, info: ValidationInfo) -> str | None:
        fits = info.data.get("join") or str(info.data.get("edit_store", "")).startswith("postgresql")
        if url and ("://" not in url or not fits):
            raise ValueError(
                "give a URL such as s3://bucket/gists or file:///mnt/gists, with an `edit_store` on PostgreSQL; SQLite "
                "keeps gists itself"
            )
        return url

    @field_validator("ray_address")
    @classmethod
    def _shared_by_a_server(cls, address: str | None, info: ValidationInfo) -> str | None:
        if address is None and info.data.get("join"):
            raise ValueError("`join` needs the address of the Ray cluster whose edit store is to be used")
        if address and not info.data.get("join") and str(info.data.get("edit_store", "")).startswith("sqlite"):
            raise ValueError(
                "engines of a cluster cannot share an `edit_store` in SQLite, a file of one machine; give the URL of a "
                "PostgreSQL database"
            )
        return address

    @model_validator(mode="after")
    def _queue_holds_a_batch(self) -> Self:
        if self.queue_limit < self.import_batch:
            raise ValueError(f"queue_limit={self.queue_limit} is smaller than import_batch={self.import_batch}")
        return self

    @model_validator(mode="after")
    def _need_key_when_reachable(self) -> Self:
        for name in ("host", "admin_host"):
            host = getattr(self, name)
            if not self.api_keys and not is_loopback(host):
                raise ValueError(f"{name}={host} is reachable from other machines: set an API key (--api-key) first")
        return self

    @property
    def engine_name(self) -> str:
        """`replica_name`; in a cluster, where two of a name must not be, by default one that no other engine has."""
        if self.ray_address is None or "replica_name" in self.model_fields_set:
            return self.replica_name
        return f"{socket.gethostname()}-{self.port}"

    @property
    def operator(self) -> str | None:
        """The project that may act for others: named, or the only one with a configured key; without any, `default`."""
        projects = {key.project for key in self.api_keys} or {DEFAULT_PROJECT}
        return self.operator_project or (projects.pop() if len(projects) == 1 else None)

    @property
    def is_encrypted(self) -> bool:
        """Whether texts and gists are encrypted in the edit store."""
        return bool(self.encryption_key) or self.encryption_key_command is not None

    def masters(self) -> tuple[MasterKey, ...]:
        """The master keys, the one in use first; none: the edit store is not encrypted. Raises NotReady."""
        if self.encryption_key_command is not None and not self.encryption_key:
            return keys_of_command(self.encryption_key_command)
        return self.encryption_key

    def master_source(self) -> MasterSource | None:
        """Where another process of this machine finds the master keys; None: only these settings have them."""
        if self.encryption_key_command is not None and not self.encryption_key:
            return MasterSource(command=self.encryption_key_command)
        path = os.environ.get(f"{ENV_PREFIX}ENCRYPTION_KEY_FILE")
        source = MasterSource(Path(path).resolve()) if path and self.encryption_key else None
        return source if source is not None and source.read() == self.encryption_key else None

    def quotas_by(self, keys: KeyRing) -> ProjectQuotas:
        """Limits of each project, by these settings and by what the database has for it."""
        return keys.quotas(self.quotas, shared=self.max_gist_bytes_per_project is None)

    @property
    def quotas(self) -> Quotas:
        """Limits of a project. Unless set, projects with a key get equal parts of the pool: none can fill it alone."""
        usable = self.pool_bytes - self.pool_bytes // RESERVE
        projects = {key.project for key in self.api_keys} or {DEFAULT_PROJECT}
        return Quotas(
            self.max_edits_per_project,
            self.max_gist_bytes_per_project or usable // len(projects),
            self.max_running_requests_per_project,
            usable,
            self.max_chat_requests_per_minute_per_project,
            self.max_writes_per_minute_per_project,
        )

    @classmethod
    def settings_customise_sources(
        cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, *_: Any, **__: Any
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only explicit values: `load_settings` merges the layers itself, so that it knows each origin."""
        return (init_settings,)


@dataclass(frozen=True)
class LoadedSettings:
    """Settings with the origin of each value: `cli`, `env`, `file` or `default`."""

    settings: Settings
    origins: Mapping[str, str]


def load_settings(config: Path | None = None, **cli: Any) -> LoadedSettings:
    """Merge the layers.

    Args:
        config: YAML file, or None.
        cli: values given on the command line; None = not given.

    Raises:
        InvalidValue: unknown key, wrong value, unreadable file.
    """
    layers = {
        "file": _read_yaml(config) if config else {},
        "env": EnvSettingsSource(Settings)() | _read_secret_files(),
        "cli": {name: value for name, value in cli.items() if value is not None},
    }
    merged: dict[str, Any] = {}
    origins = dict.fromkeys(Settings.model_fields, "default")
    for origin, layer in layers.items():
        merged |= layer
        origins |= dict.fromkeys(layer, origin)
    try:
        return LoadedSettings(Settings(**merged), origins)
    except ValidationError as error:
        raise InvalidValue(_describe(error, origins), param=_field_of(error)) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InvalidValue(f"cannot read the settings file {path}: {error}", param="config") from error
    if not isinstance(data or {}, dict):
        raise InvalidValue(f"{path}: expected `name: value` lines", param="config")
    return data or {}


def _read_secret_files() -> dict[str, str]:
    found = {}
    for field in SECRET_FIELDS:
        path = os.environ.get(f"{ENV_PREFIX}{field.upper()}_FILE")
        if path:
            try:
                found[field] = Path(path).read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                reason = f"cannot read the file that {ENV_PREFIX}{field.upper()}_FILE names: {error}"
                raise InvalidValue(reason, param=field) from error
    return found


def _field_of(error: ValidationError) -> str | None:
    loc = error.errors()[0]["loc"]
    return str(loc[0]) if loc else None


def _describe(error: ValidationError, origins: Mapping[str, str]) -> str:
    lines = []
    for item in error.errors(include_input=False, include_url=False):
        field = ".".join(map(str, item["loc"])) or "settings"
        unknown = item["type"] == "extra_forbidden"
        what = "unknown setting" if unknown else item["msg"].removeprefix("Value error, ")
        lines.append(f"{field} ({origins.get(field, 'settings')}): {what}")
    return "; ".join(lines)
