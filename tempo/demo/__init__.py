"""The demo: one ordinary training loop, run plainly and under Tempo, with a liar and a kill in the middle."""
