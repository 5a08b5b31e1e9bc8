"""Master keys of the encryption at rest: given by the operator, never stored. They wrap the projects' data keys."""

from __future__ import annotations

import base64
import hashlib
import shlex
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from incomes_plugin.errors import NotReady

KEY_BYTES = 32
COMMAND_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class MasterKey:
    """256 bits; `id` names them and does not tell them."""

    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From base64, as `openssl rand -base64 32` prints it. Raises ValueError, without repeating the text."""
        try:
            key = base64.b64decode(text.strip(), validate=True)
        except ValueError:
            key = b""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a master key is {KEY_BYTES} bytes in base64; make one with `openssl rand -base64 32`")
        return cls(key)

    @property
    def id(self) -> str:
        """From a hash of the key, which is random: the id does not help to guess it."""
        return "mk_" + hashlib.sha256(b"incomes master key\0" + self.key).hexdigest()[:16]

    def __str__(self) -> str:
        return self.id


@dataclass(frozen=True)
class MasterSource:
    """Where the master keys are, without them: a file or a command. It goes to the store's process in their place."""

    file: Path | None = None
    command: str | None = None

    def read(self) -> tuple[MasterKey, ...]:
        """The keys. Raises NotReady: they are not there now."""
        if self.file is None:
            return keys_of_command(self.command or "")
        try:
            return parse_master_keys(self.file.read_text())
        except (OSError, ValueError) as error:
            reason = str(error) if isinstance(error, OSError) else type(error).__name__
            raise NotReady(f"the file of the master key cannot be read: {reason}") from None


def parse_master_keys(text: str) -> tuple[MasterKey, ...]:
    """Keys with commas or in lines: the one in use first, then former ones. Raises ValueError."""
    return tuple(MasterKey.parse(item) for item in text.replace("\n", ",").split(",") if item.strip())


def keys_of_command(command: str) -> tuple[MasterKey, ...]:
    """What a command prints, which asks a key management service. Raises NotReady, without what it printed."""
    try:
        done = subprocess.run(
            shlex.split(command), capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=True
        )
        keys = parse_master_keys(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = str(error) if isinstance(error, OSError) else type(error).__name__
        raise NotReady(f"`encryption_key_command` gave no master key: {reason}") from None
    if not keys:
        raise NotReady("`encryption_key_command` gave no master key: it printed nothing")
    return keys
