"""The image in the body of a request: alone, or a file of a form."""

from __future__ import annotations

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import File, FormParser, parse_options_header

from ..errors import DataError

FORM = "multipart/form-data"
_PLAIN = ("", "application/octet-stream", "application/x-www-form-urlencoded")  # what clients send by default
_MOST_FIELDS = 64
_LONGEST_NAME = 200


class UploadError(DataError):
    """A request does not hold an image file; send one as the body, or as a file of a form.

    Attributes:
        status: of the HTTP response.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def check_type(content_type: str) -> None:
    """Raises UploadError (415) for a Content-Type that is no image's and no form's."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in (*_PLAIN, FORM) and not kind.startswith("image/"):
        raise UploadError(
            415,
            f"Content-Type: {kind[:80]!r} is not an image; send the file's bytes as image/png, image/jpeg or "
            f"application/octet-stream, or as a file of {FORM}",
        )


def image_in(body: bytes, content_type: str, name: str | None) -> tuple[bytes, str]:
    """The bytes of the image file, and the image's name.

    Args:
        body: of the request, whose type `check_type` has allowed.
        name: that the request gives it; None: that of the form's file, or "the image".

    Raises:
        UploadError: nothing in it (400), a form that is malformed (400) or holds no file (400).
    """
    kind, options = parse_options_header(content_type)
    if kind.decode("latin-1").lower() == FORM:
        body, in_form = _file_of_form(body, options.get(b"boundary"))
        name = in_form if name is None else name
    if not body:
        raise UploadError(400, "the body: is empty; send the bytes of an image file")
    return body, plain_name(name or "") or "the image"


def plain_name(name: str) -> str:
    """The last part of a name that a client chose, without control characters, shortened."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in last if c.isprintable())[:_LONGEST_NAME]


def _file_of_form(body: bytes, boundary: bytes | None) -> tuple[bytes, str]:
    if not boundary:
        raise UploadError(400, f"Content-Type: {FORM} without a boundary; let the client's library write the header")
    files: list[File] = []
    # The body is in memory already, within its limit: nothing goes to a temporary file.
    parser = FormParser(
        FORM,
        lambda field: None,
        files.append,
        boundary=boundary,
        config={"MAX_MEMORY_FILE_SIZE": len(body) + 1, "MAX_FIELDS": _MOST_FIELDS},
    )
    try:
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise UploadError(400, f"the form: is malformed ({error}); send one file as {FORM}") from error
    if not files:
        raise UploadError(400, "the form: holds no complete file; send one, such as `curl -F image=@part.png`")
    first = files[0]
    first.file_object.seek(0)
    return first.file_object.read(), (first.file_name or b"").decode("utf-8", "replace")
