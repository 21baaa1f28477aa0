"""Plays the cases at the SMTP door and through Postfix, compares, reports."""

import argparse
import asyncio
import collections
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blackbox import client, daemon, dns, relay, runner
from blackbox.cases import BadCases, Case, load
from blackbox.judge import Seen

from . import differences, outcome
from .gate import Gate
from .postfix import NotStarted, Postfix, Server, missing

CASE_LIMIT = 60.0
QUIET, LONGEST_QUIET = 0.05, 3.0  # before the relay is asked what it took
ARRIVAL = 30.0  # for a message from Postfix's queue
LOGGED = 1.0  # for the line of a refusal
LOG_LINES = 8
QUEUED_AS = re.compile(r"queued as ([0-9A-Za-z]+)")
RECEIVED_AS = re.compile(rb"^Received:[^\r\n]*(?:\r\n[ \t][^\r\n]*)*?\sid ([0-9A-Za-z]+)", re.M)


@dataclass
class Group:
    """Cases of one configuration, and what plays them behind Postfix: gate and servers for each door."""
    planned: dict[str, Any]
    cases: list[Case]
    name: str
    gates: dict[str, Gate] = field(default_factory=dict)
    servers: dict[tuple[str, str], Server] = field(default_factory=dict)  # by door and host


class Run:
    def __init__(self, binary: Path, zone: dns.Zone, rows: dict, directory: Path, jobs: int) -> None:
        self.binary, self.zone, self.rows, self.directory = binary, zone, rows, directory
        self.groups: list[Group] = []
        self.seen: dict[tuple[str, str], Seen] = {}
        self.asked = set()  # cases that the policy service decides
        self.failures: list[str] = []
        self.skipped: list[Case] = []
        self.tally: collections.Counter = collections.Counter()
        self.postfix: Postfix | None = None
        self.jobs = asyncio.Semaphore(jobs)

    async def run(self, cases: list[Case], limit: float) -> None:
        self.plan(cases)
        try:
            async with asyncio.timeout(limit):
                await self.prepare()
                self.postfix.start()
                await asyncio.gather(*(self.play(group) for group in self.groups))
        except TimeoutError:
            self.failures.append(f"the time of {limit:g} s was up")
        finally:
            if self.postfix:
                await asyncio.to_thread(self.postfix.stop)
            for gate in (gate for group in self.groups for gate in group.gates.values()):
                await gate.relay.stop()
        for case in cases:
            if case not in self.skipped:
                self.compare(case)

    def plan(self, cases: list[Case]) -> None:
        """The groups of the cases' own runner."""
        grouping = runner.Run(self.binary, self.zone, self.directory, 1, 0, False)
        for number, batch in enumerate(grouping.batches(cases)):
            self.groups.append(Group(batch.planned, batch.cases, f"{number:02}"))
        self.skipped = [result.case for result in grouping.results]

    async def prepare(self) -> None:
        """What Postfix's configuration names: relays, ports, sockets."""
        self.certificate = None
        if any(group.planned["tls"] for group in self.groups):
            self.certificate = await asyncio.to_thread(daemon.make_certificate, self.directory)
        if self.certificate is None:  # there is no `openssl` command
            self.skipped += [case for group in self.groups if group.planned["tls"] for case in group.cases]
            self.groups = [group for group in self.groups if not group.planned["tls"]]
        folder = self.directory / "postfix"
        for group in self.groups:
            for door in differences.DOORS:
                own = self.directory / f"{door}-{group.name}"
                gate = Gate(self.binary, group.planned, self.zone, own, door, folder / "queue")
                await gate.relay.start()
                group.gates[door] = gate
                for host in sorted({host_of(case) for case in group.cases}):
                    port = daemon.free_port([f"[{host}]" if ":" in host else host])
                    group.servers[door, host] = Server(host, port, door, gate.folder, gate.relay.port)
        self.postfix = Postfix(folder, [server for group in self.groups for server in group.servers.values()])

    async def play(self, group: Group) -> None:
        """The policy service is asked last, since the SMTP door shows what it has to decide."""
        async with self.jobs:
            await asyncio.gather(self.play_at_smtp(group), self.play_through(group, "milter", group.cases))
            seen = [(case, self.seen.get((case.id, "smtp"))) for case in group.cases]
            asked = [case for case, at_smtp in seen if at_smtp and outcome.is_for_policy_service(case, at_smtp)]
            self.asked |= {case.id for case in asked}
            if asked:
                await self.play_through(group, "policy", asked)

    async def play_at_smtp(self, group: Group) -> None:
        own = self.directory / f"smtp-{group.name}"
        gate = daemon.Daemon(self.binary, group.planned, self.zone, own, self.certificate)
        try:
            await gate.start()
            for case in group.cases:
                if case.requires and not await gate.offers(case.requires):
                    self.skipped.append(case)
                    continue
                self.seen[case.id, "smtp"] = await self.play_case(gate, case, gate.host, gate.port)
        except (daemon.NotStarted, OSError) as error:
            self.failures.append(f"group {group.name} at the SMTP door: {error}")
        finally:
            await gate.stop()

    async def play_through(self, group: Group, door: str, cases: list[Case]) -> None:
        gate = group.gates[door]
        try:
            await gate.start()
            for case in cases:
                server = group.servers[door, host_of(case)]
                self.seen[case.id, door] = await self.play_case(gate, case, server.host, server.port)
        except (daemon.NotStarted, OSError) as error:
            self.failures.append(f"group {group.name} by {door}: {error}")
        finally:
            if remark := await gate.stop():
                self.failures.append(f"group {group.name} by {door}: {remark}")

    async def play_case(self, gate: daemon.Daemon, case: Case, host: str, port: int) -> Seen:
        since = gate.log_size()
        gate.relay.begin()
        try:
            played = await asyncio.wait_for(client.play(case, host, port), CASE_LIMIT)
        except asyncio.TimeoutError:
            played = client.Played(problems=[f"the case took longer than {CASE_LIMIT:g} s"])
        queued = QUEUED_AS.findall("\n".join(played.replies))
        await until(lambda: set(queued) <= {queue_id(message) for message in gate.relay.messages}, ARRIVAL)
        if not case.raw and played.stage in ("mail", "rcpt"):
            await until(lambda: "rmxd::decision" in gate.log(since), LOGGED)
        await gate.relay.settled(QUIET, LONGEST_QUIET)
        # a message of the case before, whose reply came too late for its client, may be here only now
        messages = [message for message in gate.relay.messages if not queued or queue_id(message) in queued]
        return Seen(played, messages, list(gate.relay.violations), gate.log(since), gate.ended())

    def compare(self, case: Case) -> None:
        at_smtp = self.seen.get((case.id, "smtp"))
        if at_smtp is None:
            self.failures.append(f"{case.id}: not played at the SMTP door")
            return
        expected = outcome.answers(case, at_smtp.played)
        self.compare_at("milter", case, expected, at_smtp)
        if case.id in self.asked:
            self.compare_at("policy", case, outcome.at_policy_service(case, expected), at_smtp)
        elif (case.id, "policy") in self.rows:
            self.failures.append(f"{case.id} by policy: not decided by helo, ptr or mail_from: take its row off")

    def compare_at(self, door: str, case: Case, expected: list[outcome.Answer], at_smtp: Seen) -> None:
        seen = self.seen.get((case.id, door))
        if seen is None:
            self.failures.append(f"{case.id} by {door}: not played")
            return
        came = outcome.difference(expected, case, seen.played, at_smtp.played)
        others = outcome.other_problems(case, seen, door, as_at_smtp=not came)
        if outcome.other_problems(case, at_smtp, "smtp", as_at_smtp=True):
            others = []  # the case itself fails, at the SMTP door
        if others and not came:
            came = others.pop(0)
        problem = differences.problem(self.rows.get((case.id, door)), came)
        self.tally[door, "differ" if came else "same"] += 1
        if problem or others:
            whole = "; ".join(part for part in (problem, *others) if part)
            self.failures.append(described(case, door, whole, expected, seen))


def described(case: Case, door: str, problem: str, expected: list[outcome.Answer], seen: Seen) -> str:
    """A failure with the dialogue and the end of rmxd's log."""
    lines = [f"{case.id} by {door}: {runner.one_line(problem)}"]
    lines += [f"     why| {case.why}", f"     expected| {runner.one_line('; '.join(map(str, expected[-3:])))}"]
    lines += [f"     smtp| {runner.one_line(line)[:300]}" for line in seen.played.transcript[-40:]]
    lines += [f"     log| {runner.one_line(line)[:500]}" for line in seen.log.splitlines()[-LOG_LINES:]]
    return "\n".join(lines)


def queue_id(message: relay.Message) -> str:
    """Postfix's, from the first Received: field that it wrote; empty at the SMTP door."""
    match = RECEIVED_AS.search(message.content)
    return match[1].decode() if match else ""


async def until(condition: Callable[[], bool], longest: float) -> None:
    end = time.monotonic() + longest
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.01)


def host_of(case: Case) -> str:
    """Where the client connects to Postfix: the address of its own family."""
    return "::1" if ":" in case.client else "127.0.0.1"


def summary(cases: list[Case], run: Run) -> str:
    counts = [(door, run.tally[door, "same"], run.tally[door, "differ"]) for door in differences.DOORS]
    doors = "; ".join(f"{door} {same} same, {other} differ" for door, same, other in counts)
    skipped = f"; {len(run.skipped)} skipped" if run.skipped else ""
    failures = f"; {len(run.failures)} FAILURES" if run.failures else ", all as listed"
    return f"{len(cases)} cases: {doors}{skipped}{failures}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="doors/run", description=(
        "Plays the black-box cases at the SMTP door and through a Postfix that asks rmxd, and compares. Exit status: "
        "0 as listed, 1 a failure, 2 wrong usage or no Postfix."))
    parser.add_argument("--rmxd", required=True, type=Path, metavar="PATH", help="the binary to test")
    parser.add_argument("--cases", required=True, type=Path, metavar="DIR",
                        help="the folder of the cases and of their runner (default tests/blackbox/cases)")
    parser.add_argument("--differences", type=Path, metavar="FILE", help="default: the table beside this program",
                        default=Path(__file__).resolve().parents[1] / "differences.table")
    parser.add_argument("--id", nargs="+", action="extend", metavar="ID", help="only these cases")
    parser.add_argument("--jobs", type=int, default=6, metavar="N", help="groups at one time (default 6)")
    parser.add_argument("--limit", type=float, default=200, metavar="SECONDS",
                        help="for all cases (default 200)")
    parser.add_argument("--keep", action="store_true", help="keep configurations and logs, and say where")
    return parser.parse_args()


async def interruptible(run: Run, cases: list[Case], limit: float) -> None:
    """At SIGINT or SIGTERM everything is stopped, and the run has failed."""
    task = asyncio.current_task()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await run.run(cases, limit)


def main() -> int:
    options = arguments()
    try:
        zones, every = load(options.cases / "cases.yaml")
        cases = runner.choose(every, None, options.id)
        rows = differences.load(options.differences)
        zone = dns.Zone(zones)
    except (BadCases, differences.BadTable, ValueError, OSError) as error:
        return wrong(error)
    if not options.rmxd.is_file():
        return wrong(f"--rmxd {options.rmxd}: no such file")
    if why := missing():
        return wrong(why)
    directory = Path(tempfile.mkdtemp(prefix="rmxd-doors-"))
    directory.chmod(0o755)  # Postfix's own user has to reach its folders
    try:
        run = Run(options.rmxd.resolve(), zone, rows, directory, max(1, options.jobs))
        unknown = {row.case for row in rows.values()} - {case.id for case in every}
        run.failures += [f"{name} in {options.differences.name} is no case" for name in sorted(unknown)]
        asyncio.run(interruptible(run, cases, options.limit))
    except (NotStarted, asyncio.CancelledError) as error:
        print(f"doors/run: {str(error) or 'interrupted'}", file=sys.stderr)
        return 1
    finally:
        if options.keep:
            print(f"kept: {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if not options.id and not run.asked:
        run.failures.append("no case was one for the policy service")
    for failure in run.failures:
        print(f"FAIL {failure}")
    for case in run.skipped:
        print(f"skip {case.id}")
    print(summary(cases, run))
    return 1 if run.failures else 0


def wrong(why: object) -> int:
    print(f"doors/run: {why}", file=sys.stderr)
    return 2
