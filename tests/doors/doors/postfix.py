"""A Postfix of this run's own: configuration, queue and log in a temporary folder, and a chrooted SMTP server for each
socket of rmxd. The machine's own Postfix is not touched.

It is as stock as it can be. What differs: it looks up no names, has no limits for one client and no pauses, and all of
loopback are strangers to it. It relays for relay.test and takes each address there. An SMTP server sends what it took
to the relay of its cases (content_filter).
"""

import os
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import guide

CONTROL_WAIT = 30.0


class NotStarted(Exception):
    """Postfix doesn't run; the text says why."""


@dataclass(frozen=True)
class Server:
    """One SMTP server of Postfix."""
    host: str  # 127.0.0.1 or ::1
    port: int
    door: str  # milter or policy
    folder: str  # of rmxd's socket, below the queue folder
    relay_port: int

    def lines(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{host}:{self.port} inet n - y - - smtpd\n"
                f"  -o {{ {guide.postfix_option(self.door, self.folder)} }}\n"
                f"  -o {{ content_filter = smtp:[127.0.0.1]:{self.relay_port} }}\n")


class Postfix:
    def __init__(self, directory: Path, servers: list[Server]) -> None:
        self.directory, self.servers = directory, servers
        self.queue = directory / "queue"
        self.master = 0  # the process

    def lay_out(self) -> None:
        """Folders with their owners, main.cf and master.cf. The folders of the sockets are made as in the guide."""
        self.directory.mkdir(mode=0o755)
        for name, owner in (("etc", "root"), ("queue", "root"), ("log", "root"), ("data", "postfix")):
            (self.directory / name).mkdir(mode=0o755)
            shutil.chown(self.directory / name, owner)
        for server in self.servers:
            folder = self.queue / server.folder
            if not folder.exists():
                folder.mkdir()
                shutil.chown(folder, group="postfix")  # the owner is root, as rmxd runs as root here
                folder.chmod(0o2750)
        (self.directory / "etc/main.cf").write_text(MAIN_CF.format(folder=self.directory))
        servers = "".join(server.lines() for server in self.servers)
        (self.directory / "etc/master.cf").write_text(servers + MASTER_CF)

    def start(self) -> None:
        self.lay_out()
        self.control("start")
        self.master = int((self.queue / "pid/master.pid").read_text())

    def stop(self) -> None:
        """Ends its processes, also if its folder is gone."""
        if not self.master:
            return
        try:
            self.control("stop")
        except (OSError, NotStarted, subprocess.SubprocessError):
            os.kill(self.master, signal.SIGTERM)

    def control(self, verb: str) -> None:
        """`postfix VERB`. Its words go to a file: the daemons would hold a pipe open."""
        path = self.directory / "said.txt"
        with path.open("w") as said:
            done = subprocess.run(["postfix", "-c", self.directory / "etc", verb], stdin=subprocess.DEVNULL,
                                  stdout=said, stderr=said, timeout=CONTROL_WAIT, check=False)
        if done.returncode != 0:
            raise NotStarted(f"postfix {verb}: {path.read_text(errors='replace')}\n{self.log()}")

    def log(self) -> str:
        try:
            return (self.directory / "log/mail.log").read_text(errors="replace")
        except OSError:
            return ""


def missing() -> str:
    """Why no Postfix can be started here; empty if it can."""
    if os.geteuid() != 0:
        return "only root can start Postfix"
    return "" if shutil.which("postfix") else "Postfix is not installed"


MAIN_CF = """\
compatibility_level = 3.6
config_directory = {folder}/etc
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log/mail.log
maillog_file_prefixes = {folder}/log
mail_owner = postfix
setgid_group = postdrop

myhostname = mail.relay.test
inet_interfaces = loopback-only
mynetworks = 192.0.2.1/32
relay_domains = relay.test
local_recipient_maps =
alias_maps =
alias_database =
default_transport = error:nothing is sent from here
notify_classes =

smtpd_peername_lookup = no
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
in_flow_delay = 0
"""

# The services that taking and relaying mail need.
MASTER_CF = """\
cleanup  unix  n - n - 0 cleanup
qmgr     unix  n - n 300 1 qmgr
rewrite  unix  - - n - - trivial-rewrite
bounce   unix  - - n - 0 bounce
defer    unix  - - n - 0 bounce
trace    unix  - - n - 0 bounce
proxymap unix  - - n - - proxymap
smtp     unix  - - n - - smtp
error    unix  - - n - - error
retry    unix  - - n - - error
discard  unix  - - n - - discard
anvil    unix  - - n - 1 anvil
tlsmgr   unix  - - n - 1 tlsmgr
postlog  unix-dgram n - n - 1 postlogd
"""
