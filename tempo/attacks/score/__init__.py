"""The judges: each compares the guess of one attack with the truth. Nothing here is known to an attacker."""
