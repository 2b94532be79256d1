"""Every error faxbot raises on purpose, in one tree; the docstring of a class is its message to people.

    FaxbotError
    ├── ConfigError                 a setting is missing or wrong
    ├── KeyMissing                  the database is sealed with a master key that this process does not have
    ├── DatabaseAway                the ledger cannot be reached
    ├── RequestError                what a client asked for cannot be done
    │   ├── Malformed  Unauthenticated  Forbidden  NotFound  MediaTypeRefused  InvalidFields  KeyReused
    │   ├── CsrfTokenWrong          a kind of Forbidden: a session without the proof that a page of ours asks with it
    │   ├── Conflict
    │   │   └── KeyInFlight  FaxRemoved  NotPossibleNow  HasEnded  WebhookNotActive
    │   ├── IdentityAway            an identity provider cannot be asked
    │   ├── TooMany                 a limit is reached; says when it is over
    │   │   └── RequestsPerMinute  FailedLogins  PagesPerDay  SignInCrowded  ListenersFull  WebhookTestsCrowded
    │   │       PluginTestsCrowded
    │   └── DocumentError
    │       └── DocumentTooLarge  DocumentUnsupported  DocumentUnreadable
    ├── ProviderError               what one call to a provider told us
    │   ├── NotSent                 proven: the carrier has no fax from this call
    │   │   └── Unreachable  Refused  AccountRefused  DestinationBarred  Throttled
    │   └── OutcomeUnknown          the carrier may or may not have it: never sent again blindly
    ├── PluginError                 a plugin cannot be used; names it and says why
    │   └── StorageAway             the storage of documents cannot be asked, or does not let us in
    ├── ArtifactNotFound            stored bytes are gone
    │   └── ArtifactDamaged         they are there, and are not what was stored
    ├── LeaseLost                   another worker holds the job now: this one must write nothing more
    └── TransitionRefused           a status change that states.md does not allow

RequestError, Conflict, TooMany, DocumentError, ProviderError and FaxbotError itself are branches: only their kinds are
raised. PluginError and ArtifactNotFound are raised as they are, too.
`code` is the stable word for programs: it ends the `type` of a problem document and has a line in docs/errors.md.
ProcessEnds alone stands outside of the tree: it is no Exception.
No error carries PHI: no number, name, file name, document text or free text of a carrier.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

FieldErrors = Mapping[str, Sequence[str]]


class FaxbotError(Exception):
    """Something went wrong in faxbot."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "").splitlines()[0]
        super().__init__(self.detail)


class ConfigError(FaxbotError):
    """A setting is missing or wrong."""

    code = "config"


class KeyMissing(FaxbotError):
    """The database is sealed with a master key that this process does not have."""

    code = "key-missing"


class DatabaseAway(FaxbotError):
    """The database cannot be reached. Send it again in a moment, with the same Idempotency-Key."""

    code = "database-away"


class RequestError(FaxbotError):
    """The request cannot be carried out.

    `errors` maps a field's name to sentences about it.
    """

    code = "request"

    def __init__(self, detail: str | None = None, *, errors: FieldErrors | None = None) -> None:
        super().__init__(detail)
        self.errors: FieldErrors = errors or {}


class Malformed(RequestError):
    """The request is malformed."""

    code = "malformed"


class Unauthenticated(RequestError):
    """It is not proven who asks.

    `why` and `key_id` are for the audit trail: a word, and the id of the key that was shown, if there is one.
    """

    code = "unauthenticated"

    def __init__(
        self, detail: str | None = None, *, why: str = "not_proven", key_id: str | None = None
    ) -> None:
        super().__init__(detail)
        self.why, self.key_id = why, key_id


class Forbidden(RequestError):
    """This key may not do that."""

    code = "forbidden"


class CsrfTokenWrong(Forbidden):
    """This was sent without the proof of the session that is signed in."""

    code = "csrf-token"


class NotFound(RequestError):
    """There is no such thing here."""

    code = "not-found"


class MediaTypeRefused(RequestError):
    """This address does not take that Content-Type."""

    code = "media-type"


class InvalidFields(RequestError):
    """Some fields are not valid."""

    code = "invalid-fields"


class KeyReused(RequestError):
    """This Idempotency-Key was used for another request; use a new key for a new fax."""

    code = "idempotency-key-reused"


class Conflict(RequestError):
    """That is not possible at this moment."""

    code = "conflict"


class KeyInFlight(Conflict):
    """A request with this Idempotency-Key is being worked on; ask again in a second."""

    code = "idempotency-key-in-flight"


class FaxRemoved(Conflict):
    """The fax of this Idempotency-Key was taken long ago, and retention has removed it; nothing is sent anew."""

    code = "fax-removed"


class NotPossibleNow(Conflict):
    """The fax is in a state in which this cannot be done."""

    code = "not-possible-in-this-state"


class ChangeRefused(Conflict):
    """Faxes could not be sent, received or kept any more after this change."""

    code = "change-refused"


class ChangedMeanwhile(Conflict):
    """Somebody else has changed the settings since they were read."""

    code = "changed-meanwhile"


class HasEnded(Conflict):
    """This key has ended, and stays so."""

    code = "has-ended"


class WebhookNotActive(Conflict):
    """Nothing is sent to this webhook now."""

    code = "webhook-not-active"


class TooMany(RequestError):
    """A limit is reached.

    `retry_after` is in seconds: when it is over.
    """

    code = "too-many"

    def __init__(self, detail: str | None = None, *, retry_after: float = 1.0) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class RequestsPerMinute(TooMany):
    """This key has had its requests of this minute."""

    code = "requests-per-minute"


class FailedLogins(TooMany):
    """From this address there were too many wrong keys or passwords."""

    code = "failed-logins"


class PagesPerDay(TooMany):
    """This account has sent its pages of this day."""

    code = "pages-per-day"


class SignInCrowded(TooMany):
    """Too many people sign in at this moment."""

    code = "sign-in-crowded"


class ListenersFull(TooMany):
    """As many listen to events as this server has room for."""

    code = "listeners-full"


class WebhookTestsCrowded(TooMany):
    """Another webhook is being tested at this moment."""

    code = "webhook-tests-crowded"


class PluginTestsCrowded(TooMany):
    """Another plugin is being tested at this moment."""

    code = "plugin-tests-crowded"


class IdentityAway(RequestError):
    """The identity provider cannot be asked now, or not as it is set up here."""

    code = "identity-away"


class DocumentError(RequestError):
    """The document cannot be faxed."""

    code = "document"


class DocumentTooLarge(DocumentError):
    """The document is larger than this server takes (MAX_FILE_SIZE_MB)."""

    code = "document-too-large"


class DocumentUnsupported(DocumentError):
    """Only PDF, TIFF, PNG, JPEG and UTF-8 text can be faxed."""

    code = "document-unsupported"


class DocumentUnreadable(DocumentError):
    """The document cannot be read."""

    code = "document-unreadable"


class ProviderError(FaxbotError):
    """A provider call did not end in an acceptance.

    `cause` is a canonical code of `events.CAUSES`; `retry_after` is in seconds, when the carrier named it.
    """

    code = "provider"
    default_cause: ClassVar[str] = "system"

    def __init__(
        self,
        detail: str | None = None,
        *,
        cause: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.cause = cause or self.default_cause
        self.retry_after = retry_after


class NotSent(ProviderError):
    """The carrier did not take the fax: nothing was sent."""

    code = "not-sent"


class Unreachable(NotSent):
    """The carrier could not be reached (name, connection, TLS or connect time-out)."""

    code = "unreachable"
    default_cause = "trunk_down"


class Refused(NotSent):
    """The carrier refused this document or number for good."""

    code = "refused"
    default_cause = "rejected"


class AccountRefused(NotSent):
    """The carrier refused the account: credentials, project or funds."""

    code = "account-refused"
    default_cause = "trunk_denied"


class DestinationBarred(NotSent):
    """The carrier forbids this call (403); whether account or number is to blame is not known yet."""

    code = "destination-barred"
    default_cause = "trunk_denied"


class Throttled(NotSent):
    """The carrier asks to wait (429)."""

    code = "throttled"
    default_cause = "congestion"


class OutcomeUnknown(ProviderError):
    """Whether the carrier has the fax is not known; it is looked up, never sent again blindly."""

    code = "outcome-unknown"
    default_cause = "unconfirmed"


class PluginError(FaxbotError):
    """A plugin cannot be used."""

    code = "plugin"


class StorageAway(PluginError):
    """The storage of documents cannot be used now. Send it again in a moment, with the same Idempotency-Key."""

    code = "storage-away"


class ArtifactNotFound(FaxbotError):
    """The stored document is gone."""

    code = "artifact-not-found"


class NotADocument(FaxbotError):
    """What a carrier gave as the document of a received fax is neither PDF nor TIFF, or larger than any fax."""

    code = "not-a-document"


class ArtifactDamaged(ArtifactNotFound):
    """The stored document is not what was stored."""

    code = "artifact-damaged"


class LeaseLost(FaxbotError):
    """Another worker has this job now."""

    code = "lease-lost"


class TransitionRefused(FaxbotError):
    """The status may not change that way."""

    code = "transition-refused"


class ProcessEnds(BaseException):
    """This process is to end: nothing catches it on its way, and no plugin's code does so in its name."""
