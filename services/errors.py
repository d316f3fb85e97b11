"""What a service refuses or cannot do, each named for the fact.

A message gives the value, the rule and the way out; it is shown to people as it stands.
"""


class ServiceError(Exception):
    """Base of everything the services refuse or cannot do."""


# ---- who asks


class IdentityRequired(ServiceError):
    """The caller is not on this machine and nobody has said that strangers are answered."""


# ---- what was asked


class InvalidRequest(ServiceError):
    """The request is malformed, incomplete or contradicts itself."""


class MalformedJson(InvalidRequest):
    """The body is not JSON."""


class ModelTypeAbsent(InvalidRequest):
    """The serving bundle has no model of the type that was asked for, or none for the horizon."""


class UnsupportedMediaType(ServiceError):
    """The body is of another type than this route takes."""


class RequestTooLarge(ServiceError):
    """The body is larger than the limit."""


class UnknownCustomer(ServiceError):
    """The model knows no customer of this id."""


class NoCustomers(UnknownCustomer):
    """Nobody of those who were asked for is known, so that there is nothing to say of them."""


class MissingFile(InvalidRequest):
    """The upload has no part called file, or one without a file in it."""


# ---- jobs


class UnknownJob(ServiceError):
    """There is no job of this id among those of the caller."""


class JobNotFinished(ServiceError):
    """The result was asked for before the job is completed."""


class JobFailed(ServiceError):
    """The job ended without a result."""


class JobInProgress(ServiceError):
    """The job is being worked on and cannot be deleted."""


class JobOver(ServiceError):
    """The job has ended, or is just about to: there is nothing to cancel."""


class JobCancelled(ServiceError):
    """The job was cancelled before it was done."""


class NothingToRetry(ServiceError):
    """No row of the job failed for a reason that another try could change."""


class TooManyJobs(ServiceError):
    """The caller has as many jobs waiting or under way as are allowed at once."""


class IdempotencyConflict(ServiceError):
    """The Idempotency-Key was used before, for another file or other options."""


class WebhookRefused(InvalidRequest):
    """The address of a webhook is none that may be called."""


class ConversionFailed(ServiceError):
    """The result could not be turned into the format that was asked for."""


class LeaseLost(ServiceError):
    """Another worker has taken the job over, or it was deleted: what this one does no longer counts."""


class WorkersLost(ServiceError):
    """The job was begun as often as is allowed and its worker was lost each time."""


class ChunkGivenUp(ServiceError):
    """Some consecutive rows could not be worked on, as often as it was tried; the others are done."""


class JobCrashed(ServiceError):
    """The job was begun as often as is allowed and met an internal error each time."""


class TrainingOutOfMemory(ServiceError):
    """The command of a training, or of a reading of the tables anew, took more memory than it is given."""


class TrainingCrashed(ServiceError):
    """The command of a training ended before it was done, and not by a refusal of its own."""


class NoResultFile(ServiceError):
    """The job is of a kind that makes no file of this sort to download."""


# ---- models


class VersionUnusable(ServiceError):
    """A bundle that was to serve cannot, with this code and its files as they are."""


# ---- what stands behind


class QueueUnavailable(ServiceError):
    """The queue does not answer."""


class JobStoreUnavailable(ServiceError):
    """The database of the job table does not answer."""


class ObjectStoreUnavailable(ServiceError):
    """The store of uploads and results cannot be read or written."""


class StorageFull(ObjectStoreUnavailable):
    """There is no space left for a file."""


class ObjectMissing(ObjectStoreUnavailable):
    """A file that the job table speaks of is not in the store."""
