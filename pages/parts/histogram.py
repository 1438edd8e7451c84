"""The names that modules which are being moved still use; see charts.py."""

from pages.parts.charts import Layer, Mark
from pages.parts.charts import draw_histogram as show_histogram

__all__ = ["Layer", "Mark", "show_histogram"]
