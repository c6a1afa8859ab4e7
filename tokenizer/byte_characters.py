"""The characters by which GPT-2's and Hugging Face's files write the bytes of a token.

A token need not be valid UTF-8, so JSON cannot hold it as it is. GPT-2 gave each of the 256 bytes a
printable character of its own (`bytes_to_unicode` in its src/encoder.py,
https://github.com/openai/gpt-2), and Hugging Face's libraries do the same.
"""

from reprlib import repr as short_repr  # a file may hold values of any size

# The characters of Latin-1 that are visible stand for the bytes of the same number. The other bytes
# are written as the characters from U+0100 on.
SHOWN = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), 256)]
HIDDEN = [byte for byte in range(256) if byte not in SHOWN]
BYTE_OF = {chr(b): b for b in SHOWN} | {chr(256 + i): b for i, b in enumerate(HIDDEN)}
CHARACTER_OF = {byte: character for character, byte in BYTE_OF.items()}


def to_bytes(token: str) -> bytes:
    """The bytes that a token of a byte-level vocabulary stands for.

    >>> to_bytes("Ġlow")
    b' low'

    Raises ValueError if a character stands for no byte.
    """
    try:
        return bytes(map(BYTE_OF.__getitem__, token))
    except KeyError as error:
        raise ValueError(
            f"the token {short_repr(token)} has a character that stands for no byte, "
            f"{error.args[0]!r}: this is not a byte-level vocabulary"
        ) from None


def to_characters(token: bytes) -> str:
    """The inverse of `to_bytes`."""
    return "".join(map(CHARACTER_OF.__getitem__, token))
