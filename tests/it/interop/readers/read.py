"""For each file named on standard input: the addresses of From: as Python's email shows them, new and old interface, one JSON list a line."""
import email, email.policy, email.utils, json, sys

for path in sys.stdin.read().split("\n"):
    if not path:
        continue
    with open(path, "rb") as file:
        octets = file.read()
    shown = []
    field = email.message_from_bytes(octets, policy=email.policy.default)["from"]
    if field is not None:
        shown += [address.addr_spec for address in field.addresses]
    fields = [str(value) for value in email.message_from_bytes(octets).get_all("from", [])]
    shown += [address for _, address in email.utils.getaddresses(fields)]
    shown += [email.utils.parseaddr(value)[1] for value in fields]
    print(json.dumps([address for address in shown if address]))
