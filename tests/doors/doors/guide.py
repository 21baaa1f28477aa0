"""The lines that the guide (systemd/README.md) has for configuration files."""

import tomllib
from pathlib import Path

GUIDE = Path(__file__).resolve().parents[3] / "systemd/README.md"
QUEUE = "/var/spool/postfix"  # Postfix's queue folder there
FOLDER = "rmxd"  # the folder of the sockets in it


def block(info: str) -> list[str]:
    """The first fenced block that begins with ```INFO, without its indentation."""
    lines = iter(GUIDE.read_text(encoding="utf-8").splitlines())
    first = next((line for line in lines if line.lstrip() == f"```{info}"), None)
    if first is None:
        raise ValueError(f"{GUIDE} has no block ```{info}")
    indentation, inside = len(first) - len(first.lstrip()), []
    for line in lines:
        if line.strip() == "```":
            break
        inside.append(line[indentation:])
    return inside


def postfix_option(door: str, folder: str) -> str:
    """The parameter that switches the door on in main.cf, on one line; `folder` is that of the socket."""
    text = " ".join(line.strip() for line in block(f"main.cf {door}"))
    return replaced(text, f"unix:{FOLDER}/", f"unix:{folder}/")


def listen(door: str, queue: Path, folder: str) -> dict:
    """The table `listen` of rmxd's configuration for the door."""
    text = "\n".join(block(f"toml {door}"))
    return tomllib.loads(replaced(text, f"unix:{QUEUE}/{FOLDER}/", f"unix:{queue}/{folder}/"))["listen"]


def replaced(text: str, old: str, new: str) -> str:
    if old not in text:
        raise ValueError(f"{GUIDE}: no {old} in {text!r}")
    return text.replace(old, new)
