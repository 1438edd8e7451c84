"""The names that modules which are being moved still use; see messages.py."""

from pages.parts.messages import not_written, show_empty, show_error, show_unfinished

__all__ = ["not_written", "show_empty", "show_error", "show_unfinished"]
