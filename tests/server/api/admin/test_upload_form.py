"""What is uploaded is spooled under a key that nobody has, and read back as it was."""

import io
import os
from tempfile import SpooledTemporaryFile

import pytest
from fastapi import FastAPI, Request
from httpx import ASGITransport, AsyncClient
from incomes_server.api.admin.upload_form import SealedSpool, form_of

from incomes_plugin.errors import InvalidValue

LINES = [b'{"custom_id": "%d", "text": "The warranty is 36 months."}\n' % i for i in range(40_000)]


def test_a_spool_gives_back_what_was_written_and_its_file_tells_nothing():
    spool = SealedSpool()
    for start in range(0, len(LINES), 1000):
        spool.write(b"".join(LINES[start : start + 1000]))
    spool.seek(0)
    assert list(io.BufferedReader(spool)) == LINES
    again = SealedSpool()
    again.write(LINES[0])
    again.seek(0)
    assert again.readline() == LINES[0]
    stored = os.pread(again.fileno(), 1000, 0)
    assert len(stored) == len(LINES[0])
    assert b"warranty" not in stored
    with pytest.raises(io.UnsupportedOperation):
        again.seek(5)
    again.close()
    assert again.closed


async def test_a_large_upload_is_never_spooled_in_the_clear(monkeypatch):
    def rollover(self):
        raise AssertionError("a file in the clear")

    monkeypatch.setattr(SpooledTemporaryFile, "rollover", rollover)
    app, read = FastAPI(), []

    @app.post("/")
    async def take(request: Request):
        form = await form_of(request)
        read.append((form["purpose"], form["file"].filename, form["file"].size, form["file"].file.readlines()))
        await form.close()

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        content = b"".join(LINES)
        await client.post("/", files={"file": ("kb.jsonl", content)}, data={"purpose": "edits"})
        assert read == [("edits", "kb.jsonl", len(content), LINES)]
        for wrong in ({"content-type": "multipart/form-data"}, {"content-type": "multipart/form-data; boundary=x"}):
            with pytest.raises(InvalidValue, match="cannot be read"):
                await client.post("/", content=b"--y", headers=wrong)
