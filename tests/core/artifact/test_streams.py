"""Files and folders that do not stay behind."""

from __future__ import annotations

import pytest

from bntools.core.artifact import streams


def test_a_scratch_folder_is_gone_though_a_signal_comes_as_it_is_made(tmp_path, monkeypatch):
    made = streams.Path.mkdir

    def interrupted(path, **words):
        made(path, **words)
        raise KeyboardInterrupt

    monkeypatch.setattr(streams.Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), streams.scratch_folder(tmp_path, ".x."):
        pass
    assert not list(tmp_path.iterdir())
