"""The command line as it may be shown: what looks like a secret in it is hidden.

Rather too much than too little: whoever needs the arguments themselves can look at the process.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

HIDDEN = "<redacted>"

_LETTER = r"[^\W_]"
_SECRET_NAME = (
    r"(?:token|secret|passw(?:or)?d|passphrase|credential|auth|private|dsn|cookie|api[-_.]?key|access[-_.]?key"
    rf"|(?<!{_LETTER})(?:pass|pwd|pw|key)(?!{_LETTER}))"
)
# The bounds keep it linear, however long an argument is.
_NAMED = re.compile(
    rf"({_SECRET_NAME}[\w.-]{{0,64}}[\"'\]]{{0,2}}\s{{0,4}}(?:=|:\s)\s{{0,4}}).*", re.IGNORECASE | re.DOTALL
)
_OPTION = re.compile(rf"--?[^=\s]{{0,64}}?{_SECRET_NAME}[^=\s]{{0,64}}", re.IGNORECASE)
_SCHEME = re.compile(r"\b(bearer|basic)\s{1,4}\S+", re.IGNORECASE)
_KEYS = re.compile(
    r"(?:AKIA|ASIA|ABIA|ACCA|A3T[A-Z0-9])[A-Z0-9]{12,}"  # AWS access key ids
    r"|(?<![A-Za-z0-9/+=])(?=[^\s]{0,39}[A-Z])(?=[^\s]{0,39}[a-z])(?=[^\s]{0,39}[0-9])[A-Za-z0-9/+]{40}(?![A-Za-z0-9/+=])"
    r"|eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_.-]+"  # JSON web tokens
    r"|(?:gh[a-z]_|github_pat_|glpat-|xox[a-z]-|sk-)[A-Za-z0-9_-]{8,}"
    r"|-----BEGIN .*",
    re.DOTALL,
)


def shown_command_line(arguments: Sequence[str], token: str | None) -> list[str]:
    """The arguments with `<redacted>` in place of secrets; an argument that contains `token` is hidden as a whole.

    Hidden are values of names that sound like secrets (`--db-password=x`, `--api-key x`, `DB_DSN=x`, `token: x`), what
    follows `-p` unless it is a number, users and passwords in URLs, and keys of known shape.
    """
    shown: list[str] = []
    before = ""
    for argument in arguments:
        hidden = (token and token in argument) or _is_value_of(before, argument)
        shown.append(HIDDEN if hidden else _without_secrets(argument))
        before = "" if hidden else argument
    return shown


def _is_value_of(option: str, argument: str) -> bool:
    """Whether it is the secret that the option before it asks for."""
    if option == "-p":
        return not argument.isdigit()
    return _OPTION.fullmatch(option) is not None and not argument.startswith("--")


def _without_secrets(argument: str) -> str:
    if argument.startswith("-p") and len(argument) > 2:
        return argument if argument[2:].lstrip("=").isdigit() else f"-p{HIDDEN}"
    kept = "".join(_without_user(word) for word in re.split(r"(\s+)", argument))
    kept = _NAMED.sub(rf"\1{HIDDEN}", kept)
    kept = _SCHEME.sub(rf"\1 {HIDDEN}", kept)
    return _KEYS.sub(HIDDEN, kept)


def _without_user(word: str) -> str:
    # To the last @: passwords are not always quoted as they should be.
    begin, end = word.find("://"), word.rfind("@")
    return f"{word[: begin + 3]}{HIDDEN}{word[end:]}" if 0 <= begin < end else word
