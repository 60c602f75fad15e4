"""Activations of a small network while it trains.

>>> import numpy as np
>>> from bntools.core.datasets.labelled import Dataset, LabelledRows
>>> from bntools.tools.record import Recording, record
>>> x = np.random.default_rng(0).standard_normal((200, 4)).astype("f")
>>> rows = LabelledRows(x, (x[:, 0] > 0).astype(int))
>>> data = Dataset(rows, rows, rows, classes=2, mean=0.0, std=1.0, label="signs", sha256="")
>>> snapshots = list(record(data, Recording(network="fc:4,3,2", train=2, epochs="every:1")))
>>> [snapshot.epoch for snapshot in snapshots]
[0, 1, 2]
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bntools.core.system.faces import lazily

if TYPE_CHECKING:
    from bntools.tools.record.run import Recording, record

__all__ = ["Recording", "record"]

__getattr__ = lazily(__name__, {"Recording": ".run", "record": ".run"})
