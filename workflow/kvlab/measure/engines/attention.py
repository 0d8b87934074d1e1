"""What the accounting assumes: every layer stores every token, so one slot is one token in all layers."""

from __future__ import annotations

from collections.abc import Iterable

from kvlab.errors import KvlabError

MESSAGE = "kvlab accounts for models whose layers all have full attention; this one's KV cache has "


def require_full(kinds: Iterable[str], full: Iterable[str]) -> None:
    """Raises KvlabError where a layer's cache is of another kind: a sliding window, a recurrent state, a latent one."""
    others = sorted(set(kinds) - set(full))
    if others:
        raise KvlabError(f"{MESSAGE}{', '.join(others)}; choose another model")
