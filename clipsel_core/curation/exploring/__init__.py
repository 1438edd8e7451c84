"""What lies where in a run: neighbours, regions, words, and what two rankings disagree on."""
