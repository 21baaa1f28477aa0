"""What a case came to: at the SMTP door, and what it has to be at another."""

import dataclasses
import re
from itertools import zip_longest

from blackbox.cases import DEFAULT_HEADERS, Case, octets, step_name
from blackbox.client import Played
from blackbox.judge import CLASS_OF_CODE, Seen, judge

STAGE_OF_VERB = {b"EHLO": "helo", b"HELO": "helo", b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data", b"BDAT": "eod"}
OF_THE_POLICY_SERVICE = re.compile(r"rmxd::decision: .* outcome=refused .* identity=(helo|ptr|mail_from) ")
REFUSED_ADDRESS = re.compile(r"(?P<code>[45]\d\d) (?P<enhanced>[45]\.\d+\.\d+) (?:<.*?>: )?(?P<text>.*)", re.S)
PATH = re.compile(r' *<(?:@[^:>]*:)?(?P<path>(?:"(?:[^"\\]|\\.)*"|[^>"])*)>')
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
END = b"\r\n.\r\n"
# a refusal is the same to the letter, but for the id itself; Postfix words acceptance itself
WORDS_COUNT = ("defer", "reject")


@dataclasses.dataclass(frozen=True)
class Answer:
    """One reply, and the stage of the session that it belongs to. A close without a reply has an empty text."""
    stage: str
    text: str

    @property
    def kind(self) -> str:
        return CLASS_OF_CODE.get(self.text[:1], "close")

    def __str__(self) -> str:
        return f"{self.kind} {self.stage} {self.text}".rstrip()


def answers(case: Case, played: Played) -> list[Answer]:
    """Those that count: the deciding one of the default dialogue, with raw steps each."""
    if not case.raw:
        return [Answer(played.stage, comparable(played.deciding or ""))]
    return [Answer(stage, comparable(reply)) for stage, reply in zip(stages(case, played.replies), played.replies)]


def difference(expected: list[Answer], case: Case, played: Played, at_smtp: Played) -> str:
    """What came instead of the expected answers; empty if nothing did. Another verdict counts before other words."""
    if not case.raw and played.problems:
        return played.problems[0]
    in_words = ""
    for wanted, came in zip_longest(expected, answers(case, played)):
        if came is None:
            return played.problems[0] if played.problems else f"nothing instead of: {wanted}"
        if wanted is None or (wanted.kind, wanted.stage) != (came.kind, came.stage):
            return str(came)
        if wanted.kind in WORDS_COUNT and wanted.text != came.text:
            in_words = in_words or str(came)
    if played.problems and not at_smtp.problems:
        return played.problems[0]
    return in_words


def stages(case: Case, replies: list[str]) -> list[str]:
    """The stage of each reply to raw steps, which may be sent before the reply to the one before."""
    waiting, found, text, in_content = ["connect"], [], b"", False
    left = iter(replies)
    for step in case.raw:
        if step_name(step) == "send":
            text += octets(step["send"]) * step.get("repeat", 1)
        elif step_name(step) in ("expect", "expect_close"):
            if in_content:
                _, mark, rest = (b"\r\n" + text).partition(END)
                waiting, text, in_content = ["eod"], rest if mark else b"", False
            for line in text.split(b"\r\n"):
                if line:
                    before = waiting[-1] if waiting else found[-1]
                    waiting.append(STAGE_OF_VERB.get(line[:4].upper(), before))
            text = b""
            for reply in left:
                found.append(waiting.pop(0) if waiting else found[-1])
                in_content = found[-1] == "data" and reply.startswith("3")
                if step_name(step) == "expect":
                    break
    return found


def is_for_policy_service(case: Case, at_smtp: Seen) -> bool:
    """Whether helo, ptr and mail_from decide: one of them refused, or nothing did and the message is the usual one. Raw
    steps must end before a message, and go on after MAIL, where Postfix doesn't ask."""
    came = answers(case, at_smtp.played)
    refused = [answer for answer in came if answer.kind != "accept"]
    if not came or case.upstream or (refused and not OF_THE_POLICY_SERVICE.search(at_smtp.log)):
        return False
    if case.raw:
        sent = b"".join(octets(step["send"]) for step in case.raw if "send" in step)
        in_reach = all(answer.stage == "rcpt" for answer in refused) and not re.search(rb"^(DATA|BDAT)", sent, re.M)
        return in_reach and b"RCPT TO:" in sent
    return bool(refused) or (case.headers == DEFAULT_HEADERS and case.body == Case.body)


def at_policy_service(case: Case, at_smtp: list[Answer]) -> list[Answer]:
    """What Postfix makes of the verdict in smtpd_sender_restrictions: it asks at RCPT, says that the sender is refused
    and names it, and answers DEFER_IF_PERMIT with 450."""
    return [reworded(case, answer) if answer.kind in WORDS_COUNT else answer for answer in at_smtp]


def reworded(case: Case, answer: Answer) -> Answer:
    match = REFUSED_ADDRESS.fullmatch(answer.text)
    if not match:
        return answer
    code = "450" if answer.kind == "defer" else match["code"]
    return Answer("rcpt", f"{code} {match['enhanced']} <{sender(case)}>: Sender address rejected: {match['text']}")


def sender(case: Case) -> str:
    """MAIL FROM in Postfix's internal form: without brackets, source route, quotes and parameters."""
    text = case.mail_from
    if case.raw:
        sent = "".join(step["send"] for step in case.raw if "send" in step)
        text = (re.findall(r"MAIL FROM:(.*)", sent) or [""])[-1]
    match = PATH.match(text)
    path = match["path"] if match else text.split(" ")[0]
    return re.sub(r"\\(.)", r"\1", QUOTED.sub(r"\1", path)).strip(" ")


def other_problems(case: Case, seen: Seen, door: str, as_at_smtp: bool) -> list[str]:
    """What is wrong beside the replies: the message at the relay, the log, the daemon's end. A policy service sees no
    message and changes none. After another verdict the relay has another message or none, which is not judged."""
    expect = {name: value for name, value in case.expect.items() if name not in ("code", "enhanced")}
    if not as_at_smtp:
        expect = {name: value for name, value in expect.items() if name not in ("delivered", "relay")}
        seen = dataclasses.replace(seen, messages=[], violations=[])
    elif door == "policy" and "relay" in expect:
        expect["relay"] = {name: value for name, value in expect["relay"].items() if name in ("messages", "rcpts")}
    # The judge says nothing of the replies of a case whose steps have passed.
    passed = dataclasses.replace(case, expect=expect, raw=({"close": True},))
    return [f"beside the replies: {problem}" for problem in judge(passed, dataclasses.replace(seen, played=Played()))]


def comparable(text: str) -> str:
    """A reply with any id and any rest of the time of greylisting."""
    return re.sub(r"\bin \d+ seconds", "in N seconds", re.sub(r"\(id [0-9A-Z]{8}\)", "(id)", text))
