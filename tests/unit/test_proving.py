"""The weekly proof: a restore that was made, counted, and kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from botkeep import backups, proving
from botkeep.backups import LocalStore, Snapshot
from botkeep.config import Bot
from botkeep.formats import FORMATS
from botkeep.proving import Proof, due, last_proof
from botkeep.stores import Stores
from botkeep.stores.checking import store_check
from botkeep.stores.manifests import object_key, to_bytes
from support.trade_files import row, table

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
CSV = FORMATS["csv"]


class Shelf:
    """A bot, its file and its store."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "trades.csv"
        self.path.write_text(table(100))
        self.store = LocalStore(folder / "store", keep_free=0)
        self.bot = Bot(name="doge", data_file=self.path)
        self.now = NOW

    def back_up(self, *, figures: bool = False) -> Snapshot:
        self.now += timedelta(hours=1)
        return backups.back_up(
            self.bot, self.store, format=CSV, options=self.bot.format_options(), now=self.now, head=(1, "0" * 64),
            figures=figures,
        )  # fmt: skip

    def prove(self) -> Proof:
        self.now += timedelta(hours=1)
        options = self.bot.format_options()
        return proving.prove(self.bot, Stores(self.store), format=CSV, options=options, now=self.now)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_backup_is_restored_and_counted(shelf: Shelf) -> None:
    made = shelf.back_up()
    proof = shelf.prove()
    assert (proof.ok, proof.snapshot, proof.rows, proof.compared) == (True, made.id, 100, True)
    assert proof.figures == made.figures
    assert proof.sentence == (
        "doge's backup of 1 h ago was restored into a folder and read: 100 rows, P&L -0.9950000 USDT of 100 trades, "
        "both as noted when it was backed up."
    )
    assert last_proof(shelf.store, "doge") == proof
    assert list(shelf.store.scratch().iterdir()) == []


def test_figures_are_noted_at_first_where_asked_and_kept_while_nothing_changes(shelf: Shelf) -> None:
    first, again = shelf.back_up(), shelf.back_up()
    assert first.figures == again.figures != None  # noqa: E711
    with shelf.path.open("a") as file:
        file.write(row(100))
    grown = shelf.back_up()
    assert grown.figures is None
    proof = shelf.prove()
    assert (proof.ok, proof.compared, proof.figures and proof.figures["trades"]) == (True, False, 101)
    assert shelf.back_up(figures=True).figures == proof.figures
    assert shelf.prove().compared


def test_a_file_without_trades_that_anybody_knows_is_proven_by_its_rows(shelf: Shelf) -> None:
    shelf.path.write_text("when,what\n2026-11-21 09:00:00,hello\n2026-11-21 10:00:00,again\n")
    made = shelf.back_up()
    assert made.figures is None
    proof = shelf.prove()
    assert (proof.ok, proof.rows, proof.figures) == (True, 2, None)
    assert "its P&L cannot be counted" in proof.sentence


def test_what_does_not_come_back_as_it_was_is_no_proof(shelf: Shelf) -> None:
    assert not shelf.prove().ok
    good = shelf.back_up()
    lies = {
        "rows": Snapshot(**{**vars(good), "rows": 99, "id": "20261121T130000.000000Z-7", "seq": 7}),
        "P&L": Snapshot(
            **{**vars(good), "figures": {"trades": 100, "realised": {"USDT": "1"}}, "id": "20261121T130000.000000Z-8",
               "seq": 8}
        ),
    }  # fmt: skip
    for what, lie in lies.items():
        shelf.store.put(lie.key, to_bytes(lie))
        proof = shelf.prove()
        assert not proof.ok
        assert what in proof.sentence
        assert "its manifest says" in proof.sentence
        assert last_proof(shelf.store, "doge") == proof
    for sha, _ in good.chunks:
        (shelf.store.root / object_key("doge", sha)).unlink()
    gone = shelf.prove()
    assert gone.sentence.endswith("the local store has no good one. See: botkeep backup doge")


def test_an_old_backup_that_comes_back_is_no_proof_where_the_newer_ones_are_damaged(shelf: Shelf) -> None:
    old = shelf.back_up()
    for count, says in ((1, "The newest backup is damaged. "), (2, "The newest 2 backups are damaged. ")):
        with shelf.path.open("a") as file:
            file.write(row(99 + count))
        made = shelf.back_up()
        for sha in {sha for sha, _ in made.chunks} - {sha for sha, _ in old.chunks}:
            (shelf.store.root / object_key("doge", sha)).unlink()
        proof = shelf.prove()
        assert (proof.ok, proof.snapshot, proof.rows) == (False, old.id, 100)
        assert proof.sentence.startswith(f"{says}doge's backup of")
    assert due(shelf.store, ["doge"], shelf.now + timedelta(days=1)) == ["doge"], "asked again tomorrow"


def test_each_bot_is_due_once_a_week_and_the_longest_unproven_first(shelf: Shelf) -> None:
    names = ["ape", "bat", "cat"]
    assert due(shelf.store, names, NOW, limit=9) == names
    assert due(shelf.store, names, NOW) == ["ape"]
    for name, days, ok in (("ape", 8, True), ("bat", 6, True), ("cat", 2, False)):
        proof = Proof(name, NOW - timedelta(days=days), ok, "It was proven.")
        proving._keep(shelf.store, proof)
        assert last_proof(shelf.store, name) == proof
    assert due(shelf.store, names, NOW, limit=9) == ["ape", "cat"], "bat in a day; cat failed"
    assert due(shelf.store, [*names, "dog"], NOW, limit=2) == ["dog", "ape"]
    assert due(shelf.store, names, NOW - timedelta(days=30), limit=9) == names, (
        "a clock that was wrong holds nothing up"
    )


def test_what_was_kept_of_a_proof_may_be_damaged(shelf: Shelf) -> None:
    shelf.store.put("proofs/doge.json", b'{"bot": "doge", "at": 3}')
    assert last_proof(shelf.store, "doge") is None
    assert due(shelf.store, ["doge"], NOW) == ["doge"]


# --- the store's own check ---------------------------------------------------------------------------------------


def test_a_check_by_tenths_reads_every_object_once_in_ten_days(shelf: Shelf) -> None:
    for number in range(40):
        with shelf.path.open("a") as file:
            file.write(row(100 + number))
        shelf.back_up()
    whole = store_check(shelf.store, None, sample=None, now=NOW).bots[0]
    assert (whole.snapshots, whole.hashed, whole.loose) == (40, whole.objects, 0)
    days = [store_check(shelf.store, None, sample=0.1, now=NOW + timedelta(days=n)) for n in range(10)]
    assert sum(one.bots[0].hashed for one in days) == whole.objects
    assert max(one.bots[0].hashed for one in days) < whole.objects / 2


def test_a_check_names_damage_and_counts_what_nobody_needs(shelf: Shelf) -> None:
    good = shelf.back_up()
    key, length = next(good.objects)
    shelf.store.put(object_key("doge", "ab" * 32), b"of a killed backup")
    assert store_check(shelf.store, ["doge"], sample=None, now=NOW).bots[0].loose == 1
    shelf.store.put(key, b"x" * length)
    shelf.store.put("manifests/doge/20261121T120000.000000Z-9.json", b"{}")
    report = store_check(shelf.store, ["doge"], sample=None, now=NOW)
    found = report.bots[0]
    assert (report.ok, found.bad, found.missing, found.damaged) == (False, (key,), (), (good.id,))
    assert found.broken == ("manifests/doge/20261121T120000.000000Z-9.json",)
    assert "doge: 1 backups damaged, 0 objects missing, 1 changed, 1 manifests unreadable" in report.sentence
    assert "All of it is as it was stored" in store_check(shelf.store, [], sample=None, now=NOW).sentence
