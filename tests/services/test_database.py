from collections.abc import Callable

import pytest

from services import database
from services.database import Database, open_engine
from services.errors import JobStoreUnavailable
from services.job_table import Step, one_job
from tests.services.job_tables import LEASE_SECONDS, Bench, Clock


@pytest.fixture
def hasty_postgres(postgres_url, monkeypatch) -> str:
    """A server that waits a second where it waits ten by the settings."""
    assert "idle_in_transaction_session_timeout=10s" in database.POSTGRES_PATIENCE["options"]
    hasty = database.POSTGRES_PATIENCE["options"].replace("session_timeout=10s", "session_timeout=1s")
    monkeypatch.setitem(database.POSTGRES_PATIENCE, "options", hasty)
    return postgres_url


def freeze(database: Database, job_id: str, meanwhile: Callable[[], object]) -> None:
    """A transaction that locks the job, does nothing while something happens, and then goes on."""
    with database.writing() as connection:
        one_job(connection, job_id, lock=True)
        meanwhile()
        one_job(connection, job_id)


@pytest.mark.server
def test_a_process_that_freezes_while_it_holds_a_job_does_not_stop_the_watchdog_of_the_others(hasty_postgres):
    clock, frozen = Clock(open_engine(hasty_postgres)), Database(open_engine(hasty_postgres))
    bench = Bench(clock)
    lease, other = bench.begun(), bench.begun()
    clock.ahead = LEASE_SECONDS + 1
    taken: list[Step] = []
    with pytest.raises(JobStoreUnavailable):
        freeze(frozen, lease.job_id, lambda: taken.extend(bench.steps.end_expired_leases()))
    assert {lease.job_id, other.job_id} <= {step.job_id for step in taken}
    frozen.close()
    clock.close()


@pytest.mark.server
def test_who_waits_for_a_lock_too_long_is_told_that_the_database_does_not_answer(postgres_url, monkeypatch):
    hasty = database.POSTGRES_PATIENCE["options"].replace("lock_timeout=15s", "lock_timeout=200ms")
    monkeypatch.setitem(database.POSTGRES_PATIENCE, "options", hasty)
    clock, busy = Clock(open_engine(postgres_url)), Database(open_engine(postgres_url))
    bench = Bench(clock)
    lease = bench.begun()
    with busy.writing() as connection:
        one_job(connection, lease.job_id, lock=True)
        with pytest.raises(JobStoreUnavailable, match="LockNotAvailable"):
            bench.store.cancel(lease.job_id)
    assert bench.store.cancel(lease.job_id).status == "cancelled"
    busy.close()
    clock.close()
