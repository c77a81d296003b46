"""Chaos: training goes on while its workers are killed, stopped, cut off, slowed down, and lie.

schedule.py   what happens to whom and when, from a seed
network.py    where workers run: network namespaces with addresses of their own, or loopback
proxy.py      the bad link in front of each worker
crew.py       the workers, and how each fault is done to one
master.py     trains, in a process of its own, and says how each step went
curve.py      the same training undisturbed
run.py        all of that together
judge.py      what must hold of a run
ends.py       Ctrl-C and out of memory: nothing is left behind
"""
