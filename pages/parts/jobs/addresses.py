"""Which addresses may jobs read from? None, but what lies below those that the server was told of with --read.

A browser must not be able to send the server anywhere: to a machine beside it that trusts it, or to an archive or cache
on its own disk. So what could be read in two ways is refused.
"""

from __future__ import annotations

import re

from clipsel_core import reach
from clipsel_core.errors import JobError
from clipsel_core.jobs.control import ADDRESS
from pages.parts import catalog

# Chains, questions, patterns, and whatever is no plain character.
_TWO_READINGS = re.compile(r"::|[?#@*\[\]{}]|[^\x21-\x7e]")


def is_address(text: str) -> bool:
    """Whether somebody typed an address, s3://bucket/x or https://host/x, and not a path."""
    return "::" in text or bool(ADDRESS.match(text.strip()))


def allowed(text: str) -> str:
    """The address that somebody chose or typed. Raises JobError where it does not lie below an allowed one."""
    address = text.strip()
    known = catalog.readable_addresses()
    if not _TWO_READINGS.search(address) and reach.below(known)(address):
        return address
    expected = f"an address below {', '.join(known)}" if known else "a path: no address is allowed here"
    remedy = "start the dashboard with --read ADDRESS to allow what lies below it, or run embed in a terminal"
    raise JobError(address, expected=expected, found="another", remedy=remedy)
