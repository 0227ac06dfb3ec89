"""A store in an S3 bucket: the second copy, on somebody else's machine. Needs botkeep[s3].

Nothing rests on what a server promises. An object is created, never replaced, where the server can do that; whether it
can is only noted. If an answer is an error, a timeout or lost, the object is read and compared: equal is stored. And an
answer that no S3 server gives (a web page of a proxy or a hotel) is no answer: the client takes one for an empty list,
so every folder holds a last key, and a list is believed only if that key is in it, or is told to be missing by name.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..config import S3Config
from ..model import StoreError
from ..untrusted import clean, register_secrets
from .base import StoredObject, Workplace, require_key

if TYPE_CHECKING:
    from obstore.store import S3Store as Client

DEADLINE = 20.0
"""Seconds in which every call has its answer."""
LIMIT = 32 << 20
"""Bytes of the largest answer that is taken: chunks have at most one mebibyte, manifests a few."""
LAST = "zz"
"""The last key of every folder, behind times and hashes."""

_T = TypeVar("_T")
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")


class S3Store(Workplace):
    """A bucket. `work`: a local folder for temporary files. What failed once is not asked again by this object."""

    name = "s3"

    def __init__(
        self, config: S3Config, work: Path, environ: Mapping[str, str] | None = None, deadline: float = DEADLINE
    ) -> None:
        super().__init__(work)
        self.config = config
        self.place = f"s3://{config.bucket}/{config.prefix}"
        self.down = ""
        """Why it is not asked any more; empty: it is."""
        self._environ = os.environ if environ is None else environ
        self._deadline = deadline
        self._begun: set[str] = set()
        """Folders that are known to have their last key."""

    # --- the store ---

    def put(self, key: str, data: bytes) -> None:
        """Create it. Also stored is what is there already with these bytes, whatever the server answered."""
        require_key(key)
        self._begin(_folder_of(key))
        self._put(key, data)

    def get(self, key: str) -> bytes | None:
        """The bytes, or None. Whoever wants them knows their hash."""
        data = self._get(require_key(key))
        if data is not None and _is_page(data) and key.rpartition("/")[2] != hashlib.sha256(data).hexdigest():
            raise self._fail("read", "it answers with a web page, as a proxy or a login page does", "Mend the network.")
        return data

    def list(self, prefix: str) -> Sequence[StoredObject]:
        """Every key under the folder `prefix`."""
        found = self._ask("listed", lambda: self._pages(prefix))
        last = f"{prefix}/{LAST}"
        if any(one.key == last for one in found):
            self._begun.add(prefix)
        elif self._get(last) is not None:
            raise self._fail(
                "listed", "its list lacks a key that is there, as if a proxy had answered", "Mend the network."
            )
        return sorted(one for one in found if not one.key.endswith(f"/{LAST}"))

    def delete(self, key: str) -> None:
        """Whether it was there or not."""
        import obstore

        require_key(key)
        self._ask("cleaned up", lambda: obstore.delete(self._client, key))

    def require_room(self, size: int) -> None:
        """There always is, until a put fails."""

    def tidy(self, bot: str, before: float) -> None:  # noqa: ARG002  # as every store has it
        """Nothing half-written is ever seen there; here, temporary folders."""
        self.tidy_scratch(before)

    def creates_only(self) -> bool:
        """Whether the server refuses to replace an object when asked to create it. Told to people, never relied on."""
        import obstore
        from obstore.exceptions import AlreadyExistsError

        key = f"probe/{secrets.token_hex(8)}"

        def create(data: bytes) -> bool:
            try:
                obstore.put(self._client, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

        self._ask("written", lambda: create(b"1"))
        try:
            return not self._ask("written", lambda: create(b"2"))
        finally:
            self.delete(key)

    # --- calls ---

    def _begin(self, folder: str) -> None:
        """Give a folder its last key, once."""
        if folder and folder not in self._begun:
            self._put(f"{folder}/{LAST}", b"the last key of this folder\n")
            self._begun.add(folder)

    def _put(self, key: str, data: bytes) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError

        def create() -> None:
            try:
                obstore.put(self._client, key, data, mode="create", use_multipart=False)
            except AlreadyExistsError:
                if self._get(key) != data:
                    obstore.put(self._client, key, data, mode="overwrite", use_multipart=False)
            except (PermissionDeniedError, UnauthenticatedError):
                raise
            except BaseError:
                if self._get(key) != data:  # the answer may have been lost, not the object
                    raise

        self._ask("written", create)

    def _get(self, key: str) -> bytes | None:
        import obstore

        def read() -> bytes | None:
            try:
                answer = obstore.get(self._client, key)
            except FileNotFoundError as error:
                if "NoSuchKey" in str(error):
                    return None
                raise
            if answer.meta["size"] > LIMIT:
                raise ValueError(f"it sends {answer.meta['size']} bytes for {key}")
            return bytes(answer.bytes())

        return self._ask("read", read)

    def _pages(self, prefix: str) -> Sequence[StoredObject]:
        import obstore

        latest = time.monotonic() + self._deadline / 2
        found = []
        for page in obstore.list(self._client, prefix=prefix, chunk_size=1000):
            found += [StoredObject(one["path"], one["size"], one["last_modified"].timestamp()) for one in page]
            if time.monotonic() > latest:
                raise TimeoutError(f"its list of {prefix} takes longer than {self._deadline / 2:.0f} s")
        return found

    def _ask(self, verb: str, call: Callable[[], _T]) -> _T:
        if self.down:
            raise StoreError(self.down)
        client = self._client  # raises StoreError where it cannot be made
        del client
        from obstore.exceptions import BaseError

        try:
            return call()
        except (BaseError, OSError, ValueError) as error:
            raise self._fail(verb, *_what(error, self.config)) from error

    def _fail(self, verb: str, what: str, advice: str) -> StoreError:
        self.down = (
            f"The second copy in {self.place} cannot be {verb}: {what}. {advice} The backups on this machine are not "
            f"touched by it."
        )
        return StoreError(self.down)

    @cached_property
    def _client(self) -> Client:
        """Raises StoreError without the extra or the credentials. What AWS's variables say besides is not asked."""
        try:
            from obstore.store import S3Store as Made
        except ImportError as error:
            raise self._fail(
                "used", 'it needs botkeep[s3]: pip install "botkeep[s3]"', "Then: botkeep backup."
            ) from error
        credentials = self._credentials()
        once = self._deadline * 0.4
        options: dict[str, Any] = {"timeout": timedelta(seconds=once), "connect_timeout": timedelta(seconds=once / 2)}
        options["allow_http"] = (self.config.endpoint or "").startswith("http://")
        return Made(
            self.config.bucket,
            prefix=self.config.prefix,
            region=self.config.region,
            endpoint=self.config.endpoint or f"https://s3.{self.config.region}.amazonaws.com",
            checksum_algorithm="SHA256",
            virtual_hosted_style_request=False,
            skip_signature=False,
            credential_provider=lambda: credentials,
            client_options=options,  # type: ignore[arg-type]
            retry_config={"max_retries": 1, "retry_timeout": timedelta(seconds=self._deadline * 0.1)},
        )

    def _credentials(self) -> Any:
        """By the names in the configuration; a token of short life only with AWS's own names."""
        names = (self.config.access_key_env, self.config.secret_key_env)
        if missing := [name for name in names if not self._environ.get(name)]:
            raise self._fail(
                "used",
                f"the environment has no {' and no '.join(missing)}",
                "Give botkeep that variable (cron's environment is bare), or mend backup.s3 in config/bots.json.",
            )
        key, secret = (self._environ[name] for name in names)
        token = self._environ.get("AWS_SESSION_TOKEN") if names[0] == "AWS_ACCESS_KEY_ID" else None
        register_secrets([secret, *([token] if token else [])])
        return {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": None}


def _folder_of(key: str) -> str:
    """objects/doge of objects/doge/ab/ab12: the folder that is listed."""
    parts = key.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else ""


def _is_page(data: bytes) -> bool:
    return data[:200].lstrip()[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml", b"<error"))


# --- what went wrong, for people ---------------------------------------------------------------------------------


def _what(error: Exception, config: S3Config) -> tuple[str, str]:
    """(what was found, what to do) of a client's error. Of a server's text only its code is told."""
    text = str(error)
    code = found.group(1) if (found := _CODE.search(text)) else ""
    status = found.group(1) if (found := _STATUS.search(text)) else ""
    if code in _BY_CODE:
        what, advice = _BY_CODE[code]
        return f"{what} ({code})", advice.format(config=config)
    if status in _BY_STATUS:
        what, advice = _BY_STATUS[status]
        return f"{what} (HTTP {status}{f', {code}' if code else ''})", advice.format(config=config)
    if status.startswith("5"):
        return f"the server is in trouble (HTTP {status}{f', {code}' if code else ''})", "The next backup tries again."
    return _of_the_network(text, error)


_KEYS = "Renew what ${config.access_key_env} and ${config.secret_key_env} hold."
_BY_CODE = {
    "ExpiredToken": ("its credentials have expired", _KEYS),
    "TokenRefreshRequired": ("its credentials have expired", _KEYS),
    "InvalidToken": ("its short-lived token is not valid", "Renew what $AWS_SESSION_TOKEN holds, or unset it."),
    "InvalidAccessKeyId": ("the server does not know the key in its credentials", _KEYS),
    "SignatureDoesNotMatch": ("the secret does not fit the key", _KEYS),
    "RequestTimeTooSkewed": ("this machine's clock is wrong", "Set the clock (see `timedatectl`)."),
    "NoSuchBucket": ("there is no such bucket", "Make bucket {config.bucket}, or mend backup.s3 in config/bots.json."),
    "PermanentRedirect": ("the bucket is in another region", "Mend backup.s3.region in config/bots.json."),
    "AuthorizationHeaderMalformed": ("the bucket is in another region", "Mend backup.s3.region in config/bots.json."),
    "QuotaExceeded": ("the bucket is full", "Make room in it."),
}
_BY_STATUS = {
    "301": _BY_CODE["PermanentRedirect"],
    "401": ("its credentials are refused", _KEYS),
    "403": ("its credentials may not do that", "They need to list, get and put (and delete, to prune) in the bucket."),
    "404": ("it answers as if it were no S3 server", "Mend backup.s3.endpoint in config/bots.json."),
    "507": ("the bucket is full", "Make room in it."),
}


def _of_the_network(text: str, error: Exception) -> tuple[str, str]:
    if "kind: Timeout" in text or isinstance(error, TimeoutError):
        return "it did not answer in time", "The next backup tries again."
    if any(sign in text for sign in ("MissingEtag", "Metadata", "invalid", "Invalid", "following redirect")):
        advice = "A proxy or login page may be in between: mend the network."
        return "its answer is none that an S3 server gives", advice
    if any(sign in text for sign in ("HTTP error", "NoContentRange", "IncompleteBody")):
        return "the connection failed or was cut", "Is its server up, and this machine on the network?"
    return clean(text.partition("\n")[0], 160).rstrip("."), "The next backup tries again."
