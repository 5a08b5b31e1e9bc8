"""Forms with a file, whose content never lies on the disk in the clear: it is spooled under a key that only this
process has, and only until the file is closed."""

from __future__ import annotations

import io
import os
from tempfile import TemporaryFile
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from fastapi import Request
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from incomes_plugin.errors import InvalidValue

BUFFER_BYTES = 1 << 16


class SealedSpool(io.RawIOBase):
    """A temporary file that is written once, from its beginning to its end, and then read so, after `seek(0)`."""

    def __init__(self) -> None:
        self._file = TemporaryFile()  # noqa: SIM115 - closed by `close`
        self._cipher = Cipher(AES256(os.urandom(32)), CTR(os.urandom(16)))
        self._stream = self._cipher.encryptor()

    def writable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def write(self, data: Any) -> int:
        """Append."""
        self._file.write(self._stream.update(bytes(data)))
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """To the beginning alone: a stream cipher goes forwards."""
        if (offset, whence) != (0, os.SEEK_SET):
            raise io.UnsupportedOperation("only seek(0)")
        self._stream = self._cipher.decryptor()
        return self._file.seek(0)

    def readinto(self, buffer: Any) -> int:
        """The next bytes."""
        data = self._stream.update(self._file.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def fileno(self) -> int:
        """Of the file with the sealed bytes."""
        return self._file.fileno()

    def close(self) -> None:
        """The file is gone with its last byte."""
        self._file.close()
        super().close()


class _Parser(MultiPartParser):
    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        part = self._current_part
        if part.file is not None:
            part.file.file.close()
            spool: Any = SealedSpool()
            self._files_to_close_on_error[-1] = spool
            part.file = UploadFile(spool, size=0, filename=part.file.filename, headers=part.file.headers)


async def form_of(request: Request) -> FormData:
    """The form of a request with one file; who asks for it closes it. Raises InvalidValue: it is none."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.form(max_files=0, max_fields=8)
    try:
        form = await _Parser(request.headers, request.stream(), max_files=1, max_fields=8).parse()
    except MultiPartException as error:
        raise InvalidValue(f"the form cannot be read: {error.message}", param="file") from error
    for sent in form.values():
        if isinstance(sent, UploadFile):
            spool: Any = sent.file
            sent.file = io.BufferedReader(spool, BUFFER_BYTES)  # without it a line is read byte by byte
    return form
