"""Chaos: the whole service under load while its parts are killed, stopped and lied to; then the books are checked.

``python -m tests.chaos --seconds 60 --seed 7`` runs it; `tests.chaos.driver` tells the order of things.
"""
