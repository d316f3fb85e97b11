"""Jobs are worked on in steps that are leased one by one."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

LEASES = ("queue", "fence", "attempts", "worker_id", "lease_expires_at")
FIRST_STEPS = {"bulk_predict": "read", "convert_result": "convert"}


def upgrade() -> None:
    """Moves leases from jobs to steps; a job that is open begins anew with its first step."""
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
    for kind, first_step in FIRST_STEPS.items():
        _begin_anew(kind, first_step)


def _begin_anew(kind: str, first_step: str) -> None:
    open_jobs = "kind = :kind AND status IN ('queued', 'processing')"
    op.get_bind().execute(
        sa.text(
            "INSERT INTO steps (job_id, kind, number, status, updated_at) "
            f"SELECT job_id, :step, 0, 'waiting', updated_at FROM jobs WHERE {open_jobs}"
        ),
        {"kind": kind, "step": first_step},
    )
    op.get_bind().execute(
        sa.text(
            "UPDATE jobs SET status = 'queued', enqueued_at = NULL, rows_processed = 0, rows_successful = 0, "
            f"rows_failed = 0 WHERE {open_jobs}"
        ),
        {"kind": kind},
    )


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
