"""Multipart forms: the part ``file`` as a stream, the others as options."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, NeedData, State

from api.bodies import BLOCK_BYTES
from shared.errors import ServiceError

#: A field of a form is an option, not data.
_MOST_FIELD_BYTES = 64 * 1024
#: What the reader of a form may hold at a time: the block that came, and a part's header.
_MOST_HELD_BYTES = 2 * BLOCK_BYTES


class FormReader:
    """Reads a form once, from its first byte to its last.

    Parameters
    ----------
    boundary : str
        From the form's ``Content-Type``.

    Attributes
    ----------
    fields : dict of str to str
        The options; complete when `read_file` has ended, since they may come after the file.
    filename, media_type : str
        Of the file; known from its first byte on.
    """

    def __init__(self, boundary: str) -> None:
        if not boundary or not boundary.isascii():
            raise ServiceError("malformed_file", "The form's Content-Type has no boundary that can be used.")
        self.fields: dict[str, Any] = {}
        self.filename = self.media_type = ""
        self._has_file = False
        self._in_file = False
        self._name = ""
        self._decoder = MultipartDecoder(boundary.encode(), max_form_memory_size=_MOST_HELD_BYTES, max_parts=100)

    def read_file(self, blocks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the bytes of the file, and keep the options.

        Parameters
        ----------
        blocks : iterator of bytes
            The body.

        Raises
        ------
        ServiceError
            ``incomplete_upload`` without the end mark; ``malformed_file`` if it is no such form, or has no file.
        """
        for block in blocks:
            if self._decoder.state != State.EPILOGUE:  # what follows the end mark means nothing, and is not held
                self._decoder.receive_data(block)
                yield from self._take_events()
        if self._decoder.state != State.EPILOGUE:
            raise ServiceError("incomplete_upload", "The form has no end mark; nothing was kept.")
        if not self._has_file:
            raise ServiceError("malformed_file", "The form has no part named 'file'.")

    def _take_events(self) -> Iterator[bytes]:
        try:
            while not isinstance(event := self._decoder.next_event(), NeedData):
                if isinstance(event, File | Field):
                    self._begin_part(event)
                elif isinstance(event, Data) and self._in_file:
                    yield event.data
                elif isinstance(event, Data):
                    self._add_to_field(event)
        except ValueError as error:
            raise ServiceError("malformed_file", f"The form cannot be read: {error}") from None

    def _begin_part(self, event: File | Field) -> None:
        if not event.name:
            raise ServiceError("malformed_file", "The form has a part without a name.")
        self._name = event.name
        self._in_file = event.name == "file"
        if not self._in_file:
            self.fields[self._name] = b""
            return
        if self._has_file:
            raise ServiceError("malformed_file", "The form has two parts named 'file'.")
        self._has_file = True
        self.filename = _clean_filename(getattr(event, "filename", ""))
        self.media_type = event.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    def _add_to_field(self, event: Data) -> None:
        value = self.fields[self._name] + event.data
        if len(value) > _MOST_FIELD_BYTES:
            raise ServiceError("payload_too_large", f"The field {self._name!r} is longer than 64 KiB.")
        self.fields[self._name] = value if event.more_data else value.decode("utf-8", "replace")


def _clean_filename(name: str) -> str:
    """Return the last part of a path, without what cannot stand in a header."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(character for character in last if character.isprintable())[:200]
