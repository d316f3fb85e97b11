"""A job whose steps are no rows of a file says in words of its own how far it is."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """`progress`: what the command of a training said last, as JSON."""
    op.add_column("jobs", sa.Column("progress", sa.JSON))


def downgrade() -> None:
    """Forgets it, and the jobs that older code has no work for."""
    op.execute("DELETE FROM jobs WHERE kind IN ('train', 'generate_sample_data', 'refresh_data')")
    op.drop_column("jobs", "progress")
