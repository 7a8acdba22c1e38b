"""Kills, signals, full disks, damaged checkpoints and NaN over methods and strategies, at random.

    make soak
    PYTHONPATH=benchmarks python -m soak --minutes 5 --seed 1 --only msn

Every try runs ``lit-ssl fit`` on a tiny task, does it some harm, starts the same command again, and
compares its end with that of a run that nobody disturbed. ``docs/reliability.md`` has the table and
says what is not covered.
"""
