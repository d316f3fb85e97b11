"""Jobs are worked on in steps that are leased one by one."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LEASES = ("queue", "fence", "attempts", "worker_id", "lease_expires_at")
FIRST_STEPS = {"bulk_predict": "read", "convert_result": "convert"}
OPEN = ("queued", "processing")
ROWS_PER_CHUNK = 50_000

jobs = sa.table(
    "jobs",
    *(sa.column(name) for name in ("job_id", "kind", "status", "rows_total", "enqueued_at", "updated_at")),
    *(sa.column(name) for name in ("rows_processed", "rows_successful", "rows_failed")),
    sa.column("parameters", sa.JSON),
)
steps = sa.table(
    "steps",
    *(sa.column(name) for name in ("job_id", "kind", "number", "status", "first_row", "rows", "updated_at")),
)


def upgrade() -> None:
    """Moves leases from jobs to steps; what is not completed begins anew with its first step."""
    op.drop_index("jobs_by_status", "jobs")
    for name in LEASES:
        op.drop_column("jobs", name)
    op.add_column("jobs", sa.Column("idempotency_key", sa.Text))
    op.add_column("jobs", sa.Column("rows_read", sa.BigInteger, nullable=False, server_default="0"))
    op.create_index("jobs_by_status", "jobs", ["status", "completed_at"])
    op.create_index("one_job_per_idempotency_key", "jobs", ["owner", "idempotency_key"], unique=True)
    op.create_table(
        "steps",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.job_id", ondelete="CASCADE"), primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("first_row", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("rows", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("successful", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("key", sa.Text),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker_id", sa.Text),
        sa.Column("lease_expires_at", sa.Double),
        sa.Column("not_before", sa.Double),
        sa.Column("error_name", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("enqueued_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("finished_at", sa.Double),
    )
    op.create_index("steps_by_status", "steps", ["status", "lease_expires_at"])
    for job in op.get_bind().execute(sa.select(jobs)).mappings().all():
        if job["kind"] == "bulk_predict":
            _name_result_format(job)
        if job["status"] == "completed":
            _add_chunks(job)
        else:
            _begin_anew(job)


def _name_result_format(job: sa.RowMapping) -> None:
    made_as = job["parameters"].get("shape", {}).get("format")
    named = {**job["parameters"], "result_format": made_as}
    op.get_bind().execute(jobs.update().where(jobs.c.job_id == job["job_id"]).values(parameters=named))


def _add_chunks(job: sa.RowMapping) -> None:
    """A conversion goes through the upload in the chunks of its job."""
    total: int = job["rows_total"] or 0 if job["kind"] == "bulk_predict" else 0
    for number, first_row in enumerate(range(0, total, ROWS_PER_CHUNK), start=1):
        rows = min(ROWS_PER_CHUNK, total - first_row)
        _add_step(job, kind="score", number=number, status="done", first_row=first_row, rows=rows)


def _begin_anew(job: sa.RowMapping) -> None:
    """At once where the job was open, at a retry where it had failed."""
    _add_step(job, kind=FIRST_STEPS[job["kind"]], number=0, status="waiting")
    undone: dict[str, Any] = {"rows_processed": 0, "rows_successful": 0, "rows_failed": 0, "enqueued_at": None}
    if job["status"] in OPEN:
        undone["status"] = "queued"
    op.get_bind().execute(jobs.update().where(jobs.c.job_id == job["job_id"]).values(undone))


def _add_step(job: sa.RowMapping, **values: Any) -> None:
    row = {"job_id": job["job_id"], "updated_at": job["updated_at"], **values}
    op.get_bind().execute(steps.insert().values(row))


def downgrade() -> None:
    """Moves leases back; what is under way begins anew."""
    op.drop_table("steps")
    op.drop_index("one_job_per_idempotency_key", "jobs")
    op.drop_index("jobs_by_status", "jobs")
    op.drop_column("jobs", "rows_read")
    op.drop_column("jobs", "idempotency_key")
    op.add_column("jobs", sa.Column("queue", sa.Text, nullable=False, server_default="bulk"))
    op.add_column("jobs", sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("attempts", sa.Integer, nullable=False, server_default="0"))
    op.add_column("jobs", sa.Column("worker_id", sa.Text))
    op.add_column("jobs", sa.Column("lease_expires_at", sa.Double))
    op.create_index("jobs_by_status", "jobs", ["status", "lease_expires_at"])
    op.execute("UPDATE jobs SET status = 'queued', enqueued_at = NULL WHERE status = 'processing'")
