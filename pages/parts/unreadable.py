"""The names that modules which are being moved still use; see guards.py."""

from pages.parts.guards import callback as doing
from pages.parts.guards import dialog, fragment
from pages.parts.guards import show_unreadable as show
from pages.parts.messages import in_one_line as in_words

__all__ = ["dialog", "doing", "fragment", "in_words", "show"]
