"""For each file named on standard input: the addresses of From: as Python's email shows them, new and old interface, one JSON list a line."""
import email, email.policy, email.utils, json, sys


def new_interface(octets):
    field = email.message_from_bytes(octets, policy=email.policy.default)["from"]
    return [] if field is None else [address.addr_spec for address in field.addresses]


def old_interface(octets):
    fields = [str(value) for value in email.message_from_bytes(octets).get_all("from", [])]
    return [address for _, address in email.utils.getaddresses(fields)] + [email.utils.parseaddr(value)[1] for value in fields]


for path in sys.stdin.read().split("\n"):
    if not path:
        continue
    with open(path, "rb") as file:
        octets = file.read()
    shown = []
    for interface in (new_interface, old_interface):
        try:
            shown += interface(octets)
        except (AttributeError, IndexError, ValueError):  # a reader that gives up shows nobody
            pass
    print(json.dumps([address.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for address in shown if address]))
