"""An rmxd that Postfix asks: the configuration of a group of cases, with a socket in Postfix's queue folder."""

import asyncio
import os
import subprocess
import tomllib
from pathlib import Path
from typing import Any

from blackbox import config, daemon, dns

from . import guide


class Gate(daemon.Daemon):
    """The relay is started by itself, before Postfix; `start` starts the rest."""

    def __init__(self, binary: Path, planned: dict[str, Any], zone: dns.Zone, directory: Path, door: str,
                 queue: Path) -> None:
        super().__init__(binary, planned | {"tls": False}, zone, directory, None)
        self.door, self.queue, self.folder = door, queue, directory.name

    async def start(self) -> None:
        self.directory.mkdir(parents=True)
        await self.dns.start()
        path = self.directory / "rmxd.toml"
        path.write_text(self.configuration())
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RMXD_")}
        with self.log_path.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                self.binary, "serve", "--config", str(path), cwd=self.directory, env=environment | {"NO_COLOR": "1"},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=daemon.die_with_parent)
        await self.until_listening()

    def configuration(self) -> str:
        """That of the SMTP door, but for `listen`, which is the guide's, and `relay`, which isn't needed."""
        tables = tomllib.loads(config.render(self.planned, 0, 0, self.dns.port, None))
        tables["listen"] = guide.listen(self.door, self.queue, self.folder) | {"admin": ""}
        del tables["relay"]
        return config.toml(tables)

    async def until_listening(self) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + daemon.START_WAIT
        while "listening address=unix:" not in self.log():
            if self.process.returncode is not None or loop.time() > end:
                raise daemon.NotStarted(f"rmxd doesn't listen; its log: {' | '.join(self.log().splitlines()[-5:])}")
            await asyncio.sleep(0.02)
