"""${message}.

Why:
Locks:

Revision ${up_revision}, after ${down_revision | comma,n}.
"""

from oblivion_schema.operations import run_sql
${imports if imports else ""}
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = ${repr(branch_labels)}
depends_on = ${repr(depends_on)}
% if "run_file(" in f"{context.get('upgrades')}{context.get('downgrades')}":

SQL = Path(__file__).with_suffix("")
% endif


def upgrade() -> None:
    ${upgrades if upgrades else "pass"}


def downgrade() -> None:
    ${downgrades if downgrades else "pass"}
