"""Runs that attacks are measured on, and runs that an attacker makes under keys of its own."""
