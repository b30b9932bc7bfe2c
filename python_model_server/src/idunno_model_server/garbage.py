"""When Python looks for reference cycles. The model server itself makes hardly any; what it imports and loads is large.

By default a collection follows every 700 containers that are made and not freed yet, so a batch of 1,024 texts causes
several, each of which visits the lists of that very batch. Runners keep the default: the code in them may make cycles
of any size.
"""

from __future__ import annotations

import gc

from .freed_memory import return_freed_memory

CONTAINERS_BETWEEN = 20_000
"""More than two batches of 1,024 rows have at once."""


def collect_rarely() -> None:
    """Has this process collect once in so many new containers. Called once, at the start of the server."""
    _, *older = gc.get_threshold()
    gc.set_threshold(CONTAINERS_BETWEEN, *older)


def collect_and_freeze() -> None:
    """Frees what is unreachable, and takes what remains out of later collections.

    A full one visits every object of the loaded models, which takes a tenth of the time of a text model.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    return_freed_memory()
