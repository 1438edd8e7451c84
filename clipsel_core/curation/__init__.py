"""Picks, draws and exports what a run's scores say."""
