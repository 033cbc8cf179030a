"""What is running, what happened: all journals, followed into one SQLite file that can be thrown away.

It needs Kafka alone: no worker is asked and no saga's code is needed. `Visibility.catch_up` reads what is new,
`list`, `show` and `counts` answer from the file.
"""

from orchestrator.visibility.tasks import Task
from orchestrator.visibility.views import Details, Entry, Page, Run, StepView, VersionCount, event_data
from orchestrator.visibility.visibility import Visibility
from orchestrator.visibility.why import Wait, Why

__all__ = [
    "Details",
    "Entry",
    "Page",
    "Run",
    "StepView",
    "Task",
    "VersionCount",
    "Visibility",
    "Wait",
    "Why",
    "event_data",
]
