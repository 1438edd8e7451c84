"""The names that modules which are being moved still use; see messages.py."""

from pages.parts.messages import show_facts, show_note, show_title

__all__ = ["show_facts", "show_note", "show_title"]
