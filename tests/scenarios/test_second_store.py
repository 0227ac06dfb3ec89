"""The second copy of every backup: made after the first, proven, and never in its way, whatever the network does."""

from __future__ import annotations

import itertools
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep import backups, proving, second
from botkeep.backups import LocalStore, S3Store, Snapshot, newest_good, newest_of, snapshots
from botkeep.config import BackupConfig, Bot, Fleet, S3Config
from botkeep.formats import FORMATS
from botkeep.model import StoreError
from botkeep.second import SecondStatus, copy_over, last_copy
from botkeep.stores import Stores, base, open_stores
from botkeep.stores.checking import store_check
from botkeep.workspace import Workspace
from support import s3
from support.trade_files import row, table

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CSV = FORMATS["csv"]
DEADLINE = 3.0
"""Seconds in which a call to a store that hangs ends, in these tests."""
_numbers = itertools.count()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that checks signatures."""
    with s3.rclone(tmp_path_factory.mktemp("rclone")) as address:
        yield address


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    """A server that refuses to replace what it is asked to create."""
    with s3.moto() as address:
        yield address


@pytest.fixture
def proxy(server: str) -> Iterator[s3.Proxy]:
    with s3.proxy(server) as made:
        yield made


class Home:
    """A bot, its backups here, and where the second copies go: through the proxy, or past it."""

    def __init__(self, folder: Path, address: str, through: str) -> None:
        self.folder, self.address, self.through = folder, address, through
        self.prefix = f"t{os.getpid()}/{next(_numbers)}"
        self.path = folder / "trades.csv"
        self.rows = 100
        self.path.write_text(table(self.rows))
        self.local = LocalStore(folder / "store", keep_free=0)
        self.bot = Bot(name="doge", data_file=self.path)
        self.now = NOW

    def back_up(self, rows: int = 1) -> Snapshot:
        """After so many more rows."""
        with self.path.open("a") as file:
            file.writelines(row(self.rows + number) for number in range(rows))
        self.rows += rows
        self.now += timedelta(hours=1)
        options = self.bot.format_options()
        return backups.back_up(self.bot, self.local, format=CSV, options=options, now=self.now, head=(1, "0" * 64))

    def remote(self, *, direct: bool = False) -> S3Store:
        """A new one, as every run has: it has not failed yet."""
        address = self.address if direct else self.through
        return s3.store(address, self.folder / "work", prefix=self.prefix, deadline=DEADLINE)

    def copy(self, remote: S3Store | None = None, deadline: float = 30.0) -> SecondStatus:
        return copy_over(self.local, remote or self.remote(), "doge", now=self.now, deadline=deadline)

    def require_valid(self) -> None:
        """Whatever happened: what the second store names it has, byte by byte."""
        report = store_check(self.remote(direct=True), ["doge"], sample=None, now=NOW)
        assert report.ok, report.sentence

    def kept_there(self) -> list[Snapshot]:
        return snapshots(self.remote(direct=True), "doge")


@pytest.fixture
def home(tmp_path: Path, server: str, proxy: s3.Proxy) -> Home:
    return Home(tmp_path, server, proxy.address)


# --- when all is well --------------------------------------------------------------------------------------------


def test_every_backup_is_copied_once_and_comes_back(home: Home, proxy: s3.Proxy) -> None:
    made = [home.back_up() for _ in range(3)]
    status = home.copy()
    assert (status.ok, status.copied, status.pending, status.newest) == (True, 3, 0, made[-1].id)
    assert status.sentence == "doge: 3 backups copied to the second store and read back."
    assert home.kept_there() == made
    home.require_valid()
    fetched = home.folder / "fetched"
    backups.fetch(home.remote(), made[1], fetched)
    assert home.path.read_bytes().startswith(fetched.read_bytes())
    proxy.seen.clear()
    again = home.copy()
    assert (again.copied, again.bytes) == (0, 0)
    assert len(proxy.seen) == 1, "one list, nothing else"
    assert last_copy(home.local, "doge") == again


def test_of_a_grown_file_only_new_pieces_are_sent(home: Home) -> None:
    home.back_up(rows=20_000)
    first = home.copy()
    assert first.bytes > home.path.stat().st_size
    home.back_up()
    assert home.copy().bytes < backups.LEAST + 4096


def test_a_server_that_creates_only_is_told_from_one_that_replaces(home: Home, moto: str, tmp_path: Path) -> None:
    assert home.remote().creates_only() is False
    assert s3.store(moto, tmp_path / "w", prefix=home.prefix).creates_only() is True
    assert home.remote().list("probe") == []


def test_what_could_not_be_sent_in_time_is_sent_the_next_time(home: Home) -> None:
    made = [home.back_up() for _ in range(3)]
    late = home.copy(deadline=-1)
    assert (late.ok, late.copied, late.pending) == (True, 0, 3)
    assert late.sentence.endswith("3 go there next time.")
    home.copy()
    assert home.kept_there() == made


def test_a_backup_that_is_damaged_here_is_not_copied(home: Home) -> None:
    bad = home.back_up()
    home.back_up(rows=2000)
    key, _ = next(bad.objects)
    (home.local.root / key).chmod(0o600)
    (home.local.root / key).write_bytes(b"spoilt")
    status = home.copy()
    assert (status.copied, status.notes) == (1, (f"backup {bad.id} is damaged here and was not copied",))
    home.require_valid()


def test_an_object_that_went_bad_there_is_written_again_by_the_next_backup(home: Home) -> None:
    made = home.back_up(rows=20_000)
    home.copy()
    remote = home.remote(direct=True)
    for key, length in made.objects:
        remote.put(key, b"x" * length)
    assert not store_check(remote, ["doge"], sample=None, now=NOW).ok
    last = home.back_up()
    assert home.copy().copied == 1
    assert newest_good(home.remote(), "doge") == last, "its pieces, most of which the bad one has too, are good again"


def test_nothing_is_pruned_there_while_backups_are_copied(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "LOCK_WAIT", 0.1)
    made = home.back_up()
    remote = home.remote()
    pruned: list[str] = []

    class Watched(LocalStore):
        def put(self, key: str, data: bytes) -> None:
            with pytest.raises(StoreError, match="Another backup of doge"):
                backups.prune(LocalStore(self.root, keep_free=0), "doge", NOW)
            pruned.append(key)
            super().put(key, data)

    there = Watched(home.folder / "there", keep_free=0)
    assert copy_over(home.local, there, "doge", now=home.now).ok
    assert (len(pruned), newest_good(there, "doge")) == (2, made)
    held = remote.lock("doge")
    assert held.acquire()
    status = home.copy(remote)
    held.release()
    assert (status.ok, "Another backup of doge" in status.trouble) == (False, True)


def test_an_object_that_another_machine_prunes_meanwhile_is_copied_again(home: Home) -> None:
    made = home.back_up()

    class Pruned(LocalStore):
        """Each object is gone once, after it was read."""

        gone: set[str] = set()  # noqa: RUF012

        def get(self, key: str) -> bytes | None:
            data = super().get(key)
            if key.startswith("objects/") and data is not None and key not in self.gone:
                self.gone.add(key)
                self.delete(key)
            return data

    there = Pruned(home.folder / "there", keep_free=0)
    for key, _ in made.objects:
        there.put(key, home.local.get(key) or b"")  # of a copy that was killed
    assert copy_over(home.local, there, "doge", now=home.now).ok
    assert there.gone
    assert store_check(there, ["doge"], sample=None, now=NOW).ok


# --- when the first store is lost --------------------------------------------------------------------------------


def test_a_restore_finds_the_second_copy_where_the_first_has_none(home: Home) -> None:
    made = home.back_up()
    home.copy()
    empty, remote = LocalStore(home.folder / "empty", keep_free=0), home.remote()
    assert newest_of([empty, remote], "doge") == (remote, made)
    assert newest_of([home.local, remote], "doge") == (home.local, made)
    assert newest_of([empty], "doge") is None


def test_the_newer_of_two_good_backups_wins_where_the_first_store_is_damaged(home: Home) -> None:
    old, new = home.back_up(), home.back_up(rows=2000)
    home.copy()
    for key in {key for key, _ in new.objects} - {key for key, _ in old.objects}:
        (home.local.root / key).unlink()
    assert newest_good(home.local, "doge") == replace(old, skipped=1)
    remote = home.remote()
    assert newest_of([home.local, remote], "doge") == (remote, new)


def test_a_second_store_that_fails_does_not_hide_the_first(home: Home, proxy: s3.Proxy) -> None:
    made = home.back_up()
    proxy.break_("503")
    assert newest_of([home.remote(), home.local], "doge") == (home.local, made)
    with pytest.raises(StoreError, match="in trouble"):
        newest_of([home.remote(), LocalStore(home.folder / "none", keep_free=0)], "doge")


# --- what networks do --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
def test_an_answer_that_was_lost_is_no_failure(home: Home, proxy: s3.Proxy, lost: int) -> None:
    """The object is there: it is read and compared. Each of the first puts in turn."""
    home.back_up()
    puts = itertools.count(1)
    proxy.break_("lost", when=lambda method, _: method == "PUT" and next(puts) == lost)
    assert home.copy().ok
    home.require_valid()


def test_an_answer_lost_by_a_server_that_creates_only_is_no_failure(tmp_path: Path, moto: str) -> None:
    with s3.proxy(moto) as between:
        home = Home(tmp_path, moto, between.address)
        made = home.back_up()
        between.break_("lost", when=lambda method, _: method == "PUT")
        assert home.copy().ok
        between.mend()
        assert newest_good(home.remote(), "doge") == made


FAULTS = {
    "503": "the server is in trouble (HTTP 503)",
    "403": "its credentials have expired (ExpiredToken)",
    "404": "it answers as if it were no S3 server",
    "reset": "the connection failed or was cut",
    "cut": "the connection failed or was cut",
    "hang": "it did not answer in time",
    "endless": "it did not answer in time",
    "html": "",
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("begins", ["at once", "at the first put", "at the third put"])
def test_a_store_in_trouble_is_named_in_time_and_asked_no_more(
    home: Home, proxy: s3.Proxy, fault: s3.Fault, begins: str
) -> None:
    made = home.back_up()
    puts = itertools.count(1)
    at = {"at once": 0, "at the first put": 1, "at the third put": 3}[begins]
    broken = at == 0

    def when(method: str, _: str) -> bool:
        nonlocal broken
        broken = broken or (method == "PUT" and next(puts) == at)
        return broken

    proxy.break_(fault, when=when)
    remote = home.remote()
    started = time.monotonic()
    status = home.copy(remote)
    assert time.monotonic() - started < 2 * DEADLINE + 2
    assert not status.ok
    assert FAULTS[fault] in status.trouble
    assert remote.config.bucket in status.trouble
    assert s3.SECRET not in status.trouble
    assert "\n" not in status.trouble
    assert len(status.trouble) < 400
    asked = len(proxy.seen)
    with pytest.raises(StoreError, match="cannot be"):
        remote.get("objects/doge/ab/cd")
    assert len(proxy.seen) == asked, "a store that failed is not asked again in the same run"
    assert newest_good(home.local, "doge") == made
    assert last_copy(home.local, "doge") == status
    proxy.mend()
    home.require_valid()
    assert home.copy().ok, "the next run goes on"
    assert home.kept_there() == [made]


def test_a_web_page_is_never_taken_for_an_empty_store(home: Home, proxy: s3.Proxy) -> None:
    """The client reads no keys out of a page: a prune would find that nothing is needed any more."""
    for _ in range(3):
        home.back_up()
    home.copy()
    proxy.break_("html", when=lambda method, path: method == "GET" and "list-type" in path)
    with pytest.raises(StoreError, match="as if a proxy had answered"):
        home.remote().list("manifests/doge")
    with pytest.raises(StoreError):
        backups.prune(home.remote(), "doge", NOW + timedelta(days=4000))
    proxy.break_("html", when=lambda method, path: method == "GET" and "list-type" in path and "objects" in path)
    with pytest.raises(StoreError):
        backups.prune(home.remote(), "doge", NOW + timedelta(days=4000))
    proxy.mend()
    assert len(home.kept_there()) == 3
    home.require_valid()


def test_a_web_page_or_half_an_object_is_never_taken_for_a_backup(home: Home, proxy: s3.Proxy) -> None:
    made = home.back_up()
    home.copy()
    for fault in ("html", "cut"):
        proxy.break_(fault, when=lambda method, path: method == "GET" and "/objects/" in path)
        with pytest.raises(StoreError):
            backups.fetch(home.remote(), made, home.folder / "fetched")
        with pytest.raises(StoreError):
            newest_of([home.remote()], "doge")


@pytest.mark.parametrize("number", range(1, 12))
def test_a_copy_that_is_cut_off_at_any_request_leaves_a_valid_store(home: Home, proxy: s3.Proxy, number: int) -> None:
    for _ in range(2):
        home.back_up(rows=1000)
    requests = itertools.count(1)
    proxy.break_("reset", when=lambda _method, _path: next(requests) >= number)
    assert not home.copy().ok
    proxy.mend()
    home.require_valid()
    assert home.copy().ok
    assert len(home.kept_there()) == 2


# --- credentials -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "environ", "says"),
    [
        (
            {},
            {"AWS_ACCESS_KEY_ID": "SOMEOTHERKEY0000"},
            "does not know the key in its credentials (InvalidAccessKeyId)",
        ),
        ({}, {"AWS_SECRET_ACCESS_KEY": "not-the-secret-of-it"}, "the secret does not fit the key"),
        ({}, {"AWS_SECRET_ACCESS_KEY": ""}, "the environment has no AWS_SECRET_ACCESS_KEY"),
        ({"access_key_env": "MY_KEY", "secret_key_env": "MY_SECRET"}, {}, "no MY_KEY and no MY_SECRET"),
        ({"bucket": "nobodys"}, {}, "there is no such bucket (NoSuchBucket). Make bucket nobodys"),
    ],
)
def test_what_is_wrong_with_the_configuration_is_said(
    tmp_path: Path, server: str, config: dict[str, str], environ: dict[str, str], says: str
) -> None:
    given = S3Config(**{"bucket": s3.BUCKET, "endpoint": server, **config})
    remote = S3Store(given, tmp_path, {**s3.ENVIRON, **environ}, deadline=DEADLINE)
    with pytest.raises(StoreError) as caught:
        remote.put("objects/doge/ab/x1", b"1")
    assert says in str(caught.value)
    assert not [value for value in (s3.SECRET, *environ.values()) if value and value in str(caught.value)]


def test_own_names_of_variables_are_followed_and_other_aws_variables_are_not(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    strange = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_SKIP_SIGNATURE": "true", "AWS_SESSION_TOKEN": "not-ours",
        "AWS_ACCESS_KEY_ID": "NOTTHISONE000000", "AWS_REGION": "nowhere", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true",
    }  # fmt: skip
    for name, value in strange.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("BACKUP_KEY", s3.KEY)
    monkeypatch.setenv("BACKUP_SECRET", s3.SECRET)
    given = S3Config(
        bucket=s3.BUCKET, prefix=home.prefix, endpoint=home.address, access_key_env="BACKUP_KEY",
        secret_key_env="BACKUP_SECRET",
    )  # fmt: skip
    remote = S3Store(given, home.folder / "work", deadline=DEADLINE)
    remote.put("objects/doge/ab/x1", b"1")
    assert remote.get("objects/doge/ab/x1") == b"1"


def test_without_the_extra_the_sentence_says_how_to_install_it(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    home.back_up()
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    status = home.copy()
    assert 'it needs botkeep[s3]: pip install "botkeep[s3]"' in status.trouble


def test_opening_the_stores_asks_nobody(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    plain = open_stores(Fleet(workspace, ()))
    assert [one.name for one in plain.all] == ["local"]
    assert plain.local.root == workspace.backups_dir
    nowhere = BackupConfig(
        folder=tmp_path / "no/such/disk", s3=S3Config(bucket="nobodys", endpoint="http://127.0.0.1:1")
    )
    stores = open_stores(Fleet(workspace, (), backup=nowhere), environ={})
    assert [one.name for one in stores.all] == ["local", "s3"]
    assert list(tmp_path.iterdir()) == []


# --- the proof ---------------------------------------------------------------------------------------------------


def test_a_proof_restores_the_second_copy_too(home: Home, proxy: s3.Proxy) -> None:
    home.back_up()
    options, stores = home.bot.format_options(), Stores(home.local, home.remote())
    early = proving.prove(home.bot, stores, format=CSV, options=options, now=home.now)
    assert (early.ok, early.second) == (False, "it has no good backup yet")
    home.copy()
    proof = proving.prove(home.bot, stores, format=CSV, options=options, now=home.now)
    assert proof.ok
    assert proof.second == "the backup of 2026-11-21 13:00:00Z came back byte by byte"
    proxy.break_("503")
    late = proving.prove(home.bot, Stores(home.local, home.remote()), format=CSV, options=options, now=home.now)
    assert not late.ok
    assert "the server is in trouble" in late.second
    assert late.rows == 101, "what is here was proven all the same"


def test_a_second_copy_whose_newest_backups_are_damaged_is_no_proof(home: Home) -> None:
    home.back_up(rows=2000)
    made = [home.back_up(rows=3000) for _ in range(2)]
    home.copy()
    old, remote = newest_good(home.local, "doge", before=made[0].at), home.remote(direct=True)
    assert old is not None
    for key, length in {one for snapshot in made for one in snapshot.objects} - set(old.objects):
        remote.put(key, b"x" * length)
    stores = Stores(home.local, home.remote())
    proof = proving.prove(home.bot, stores, format=CSV, options=home.bot.format_options(), now=home.now)
    assert (proof.ok, proof.rows) == (False, made[-1].rows)
    assert proof.second.startswith("its newest 2 are damaged, the backup of 2026-11-21 13:00:00Z came back")


def test_the_status_survives_only_as_it_was_written(home: Home) -> None:
    assert last_copy(home.local, "doge") is None
    home.local.put("second/doge.json", b'{"bot": "doge"')
    assert last_copy(home.local, "doge") is None
    assert second.DEADLINE > DEADLINE
