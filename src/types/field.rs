//! The fields of a reported event, by which a bad one is refused and counted.

/// Which field is at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventField {
    /// None: the event is no object, or has an unknown field.
    Event,
    /// `installId`
    InstallId,
    /// `eventName`
    EventName,
    /// `eventTime`
    EventTime,
    /// `properties`
    Properties,
    /// `eventId`
    EventId,
    /// `userId`
    UserId,
    /// `client`
    Client,
}
