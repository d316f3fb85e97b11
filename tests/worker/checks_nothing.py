"""Given to a worker by `-I`: it never notices by itself that its link is dead."""

from worker.celery_app import TRANSPORT, running_app

running_app().conf.broker_transport_options = {**TRANSPORT, "health_check_interval": 0, "socket_timeout": None}
