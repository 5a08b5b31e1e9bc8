"""docs/tutorial.md, command by command, in the order of the page, against a real server with the default model.

What the page shows must come out. Ids, milliseconds and weights may differ; an id that a command printed takes the
place of the page's id in later commands. A line of output that ends in `…` is the beginning of a longer one.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from incomes_server.cli.server_process import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.vllm, pytest.mark.ray]

PAGE = (Path(__file__).parents[2] / "docs" / "tutorial.md").read_text()
BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<language>\w+)\n(?P<body>.*?)```", re.DOTALL)
ID = re.compile(r"(?:edit|eset)_[A-Za-z0-9_-]{24}")
VARIES = re.compile(r"(?:\(\d+ ms\)|weight \d\.\d\d)")


class Reader:
    """Somebody who follows the page: a folder, a shell, and a server in another terminal."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ids: dict[str, str] = {}
        self.ports = {"8000": free_port(), "8001": free_port()}
        self.env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.env |= {
            "INCOMES_API_KEY": "secret-shop-key",
            "INCOMES_ADMIN_URL": f"http://127.0.0.1:{self.ports['8001']}",
        }
        self.server: subprocess.Popen[str] | None = None

    def save(self, name: str, text: str) -> None:
        """Write a file of the page; the settings get ports that are free here."""
        ports = "port: {}\nadmin_port: {}\n".format(*self.ports.values()) if name.endswith(".yaml") else ""
        (self.folder / name).write_text(self.here(text) + ports)

    def here(self, text: str) -> str:
        """The page's text with the ports and ids of this run."""
        for page, port in self.ports.items():
            text = text.replace(f"127.0.0.1:{page}", f"127.0.0.1:{port}")
        return ID.sub(lambda found: self.ids.get(found.group(), found.group()), text)

    def serve(self, command: str) -> None:
        """Run the page's command in another terminal; what runs there is stopped first."""
        self.stop()
        words = shlex.split(command)
        settings = dict(word.split("=") for word in words if "=" in word)
        with (self.folder / "server.log").open("w") as log:
            self.server = subprocess.Popen(
                [word for word in words if "=" not in word],
                cwd=self.folder,
                env={**self.env, **settings, "PYTHONUNBUFFERED": "1"},
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self.server.stdout is not None
        printed = []
        while " ready: " not in (line := self.server.stdout.readline()):
            printed.append(line)
            assert line, "".join(printed) + (self.folder / "server.log").read_text()[-2000:]

    def stop(self) -> None:
        """Ctrl-C."""
        if self.server:
            self.server.send_signal(signal.SIGINT)
            self.server.communicate(timeout=60)
            self.server = None

    def run(self, command: str, expected: str) -> None:
        if command.startswith("export "):
            return
        if "incomes serve " in command:
            return self.serve(command)
        done = subprocess.run(
            self.here(command), shell=True, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=240
        )
        said = done.stdout + "".join(line for line in done.stderr.splitlines(True) if line.startswith("error: "))
        self.compare(command, expected, said)

    def compare(self, command: str, expected: str, said: str) -> None:
        pattern = re.escape(VARIES.sub("\0", expected.strip())).replace("\0", VARIES.pattern).replace("…", ".*")
        new = [found for found in dict.fromkeys(ID.findall(expected)) if found not in self.ids]
        for known, here in self.ids.items():
            pattern = pattern.replace(re.escape(known), re.escape(here))
        for number, found in enumerate(new):
            first, *again = pattern.split(re.escape(found))
            pattern = first + f"(?P<new{number}>{ID.pattern})" + f"(?P=new{number})".join(again)
        match = re.fullmatch(pattern, said.strip())
        assert match, f"$ {command}\nshould say:\n{expected}\nsays:\n{said}"
        self.ids |= {found: match[f"new{number}"] for number, found in enumerate(new)}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    reader = Reader(tmp_path)
    yield reader
    reader.stop()


def commands(body: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block with the output that the page shows below it."""
    for part in re.split(r"^\$ ", body, flags=re.MULTILINE)[1:]:
        command, _, output = part.partition("\n")
        yield command, output


@pytest.mark.timeout(1500)
def test_the_tutorial_works_as_it_says(reader: Reader) -> None:
    blocks = list(BLOCK.finditer(PAGE))
    assert len(blocks) > 10
    for block in blocks:
        if block["language"] == "console":
            for command, output in commands(block["body"]):
                reader.run(command, output)
        else:
            reader.save(re.findall(r"`([\w.]+)`:$", block["before"])[0], block["body"])
