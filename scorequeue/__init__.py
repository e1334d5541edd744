"""Score rows with the models of a scorequeue service: the Python client.

Nothing of the service itself is imported here; the client needs its address and no more.
"""

from scorequeue.client import Client as Client
from scorequeue.errors import JobFailed as JobFailed
from scorequeue.errors import JobTimeout as JobTimeout
from scorequeue.errors import OutcomeUnknown as OutcomeUnknown
from scorequeue.errors import RequestRefused as RequestRefused
from scorequeue.errors import ScorequeueError as ScorequeueError
from scorequeue.errors import ServiceUnreachable as ServiceUnreachable
from scorequeue.errors import WrongUse as WrongUse
from scorequeue.job import Job as Job
from scorequeue.transfer import Progress as Progress

__version__ = "0.1.0"
