"""The job table and the workers' heartbeats."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates jobs and workers. Times are seconds since 1970 (UTC); `fence` grows with every claim of a job."""
    op.create_table(
        "jobs",
        sa.Column("job_id", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("queue", sa.Text, nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("parent_id", sa.Text, sa.ForeignKey("jobs.job_id", ondelete="CASCADE")),
        sa.Column("variant", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("parameters", sa.JSON, nullable=False),
        sa.Column("metadata", sa.JSON, nullable=False),
        sa.Column("statistics", sa.JSON),
        sa.Column("error_name", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("bundle_id", sa.Text),
        sa.Column("snapshot_id", sa.Text),
        sa.Column("result_key", sa.Text),
        sa.Column("rows_total", sa.BigInteger),
        sa.Column("rows_processed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("rows_successful", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("rows_failed", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("fence", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("worker_id", sa.Text),
        sa.Column("lease_expires_at", sa.Double),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("enqueued_at", sa.Double),
        sa.Column("started_at", sa.Double),
        sa.Column("completed_at", sa.Double),
        sa.UniqueConstraint("parent_id", "kind", "variant", name="one_job_per_variant"),
    )
    op.create_index("jobs_of_an_owner", "jobs", ["owner", "kind", "created_at"])
    op.create_index("jobs_by_status", "jobs", ["status", "lease_expires_at"])
    op.create_table(
        "workers",
        sa.Column("worker_id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("queues", sa.JSON, nullable=False),
        sa.Column("started_at", sa.Double, nullable=False),
        sa.Column("seen_at", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Drops both."""
    op.drop_table("workers")
    op.drop_table("jobs")
