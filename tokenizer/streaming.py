"""The text of ids that come one at a time, as a model generates them."""

import codecs

from .base import Tokenizer


class StreamDecoder:
    """Decodes ids that come one at a time: each character as soon as its bytes are complete.

    >>> decoder = StreamDecoder(BPETokenizer([]))
    >>> [decoder.push(i) for i in "é!".encode()], decoder.finish()
    (['', 'é', '!'], '')

    All the texts that `push` and `finish` return, joined, are `decode` of all the ids. With
    `errors="strict"`, bytes that cannot be part of UTF-8 raise UnicodeError, and the decoder stays
    as it was before them.

    With `continues`, the ids continue a text, and are not a text of their own: a space at their
    start is part of it, also where `decode` would leave it out (`Tokenizer.drops_first_space`).
    """

    def __init__(self, tokenizer: Tokenizer, errors: str = "replace", continues: bool = False):
        self.tokenizer, self.errors = tokenizer, errors
        self._at_start = tokenizer.drops_first_space and not continues
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors)

    def push(self, token_id: int) -> str:
        """The characters that `token_id` completes. Raises ValueError outside the vocabulary."""
        state = self._utf8.getstate()
        try:
            text = self._utf8.decode(self.tokenizer.decode_bytes([token_id]))
            # Python waits for the third byte of a surrogate before it refuses it.
            if (
                self.errors == "strict"
                and b"\xed\xa0" <= self._utf8.getstate()[0][:2] <= b"\xed\xbf"
            ):
                raise UnicodeError("half a surrogate")
        except UnicodeError:
            self._utf8.setstate(state)
            raise
        if self._at_start and text:
            self._at_start, text = False, text.removeprefix(" ")
        return text

    def finish(self) -> str:
        """U+FFFD if the last character is incomplete, "" otherwise."""
        return self._utf8.decode(b"", final=True)
