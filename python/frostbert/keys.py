"""The keys of documents: hashes of texts, under which a cache keeps their states."""

from __future__ import annotations

import struct
from typing import Any, Sequence

from .errors import MissingError


def hasher(**options: Any) -> Any:
    """A new BLAKE3 hasher, of the package ``blake3``."""
    try:
        import blake3
    except ImportError as missing:
        raise MissingError(
            "the keys and the checksums of a cache are BLAKE3 hashes, and the package `blake3` is not installed",
            hint="pip install blake3",
        ) from missing
    return blake3.blake3(**options)


def key_of(
    text: str | None = None,
    text_pair: str | None = None,
    *,
    words: Sequence[str] | None = None,
    prompt: str | None = None,
) -> bytes:
    """Returns the key of a document, 32 bytes.

    A document is a text, two texts that were encoded as one input (``text_pair``), a sentence that is given as words
    (``words``, for tagging), or a text that a prompt was put before (``prompt``). Two texts that are compared, but were
    encoded one by one, are two documents. Texts have to be exactly what the data file holds.

    >>> key_of("a good film").hex()[:16]
    'ec956f64d00bb0be'
    >>> key_of("a good film") == key_of(words=["a", "good", "film"])
    False
    """
    if words is not None:
        if text is not None or text_pair is not None or prompt is not None:
            raise TypeError("words stand alone: neither text, text_pair nor prompt can be given with them")
        tag, parts = b"word", list(words)
    elif text is None:
        raise TypeError("a text or words are needed")
    elif text_pair is not None:
        if prompt is not None:
            raise TypeError("a pair in one input has no prompt")
        tag, parts = b"pair", [text, text_pair]
    elif prompt is not None:
        tag, parts = b"prom", [prompt, text]
    else:
        tag, parts = b"text", [text]
    digest = hasher()
    digest.update(tag + struct.pack("<Q", len(parts)))
    for part in parts:
        raw = part.encode("utf-8")
        digest.update(struct.pack("<Q", len(raw)) + raw)
    key: bytes = digest.digest()
    return key
