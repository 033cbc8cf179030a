"""The whole system in one process, under faults, from one seed: `saga simulate`.

Workers, participants and clients are the real ones on the log and store in memory; time, order and every fault come
from the seed. After each run the checker says whether the promise held.
"""
