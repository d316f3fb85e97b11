"""Given to a worker by `-I`: its trainings are done by a command that says what a training says, and waits."""

import sys
from pathlib import Path

from services.job_table import TRAIN
from services.training_jobs import COMMANDS

STAND_IN = Path(__file__).parents[1] / "services" / "stand_in_command.py"
COMMANDS[TRAIN] = (sys.executable, str(STAND_IN), "train")
