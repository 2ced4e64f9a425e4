//! Whether a place is of the history that a log holds. Pure.

use super::Place;
use super::place::id_check;

/// How a place fits a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It is of this history.
    Valid,
    /// Another message stands there.
    OtherMessage,
    /// The log ends before it.
    Beyond,
    /// What stood there is trimmed, and the epoch is another one.
    Unknown,
}

/// Whether a place (`epoch`, `seq`, `id`; 0 = not known) is of the history of
/// a log with this `log_epoch` and `top`, whose message at `seq` is `at`,
/// unless it is trimmed.
#[must_use]
pub(crate) fn prove(place: &Place, log_epoch: u64, top: i64, at: Option<i64>) -> Proof {
    let same_epoch = place.epoch == log_epoch;
    match at {
        _ if place.seq == 0 => Proof::Valid,
        _ if place.seq > top => Proof::Beyond,
        Some(id) if place.id == id_check(id) => Proof::Valid,
        Some(_) if place.id == 0 && same_epoch => Proof::Valid,
        Some(_) => Proof::OtherMessage,
        None if same_epoch => Proof::Valid,
        None => Proof::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ConversationId;

    #[test]
    fn a_place_is_proved_by_the_message_there() {
        let conversation = ConversationId::parse("p2p:1:2").unwrap();
        let place = |epoch, seq, id| Place::new(&conversation, epoch, seq, id);
        assert_eq!(prove(&place(7, 5, 50), 9, 8, Some(50)), Proof::Valid, "whatever the epoch");
        assert_eq!(prove(&place(7, 5, 50), 7, 8, Some(51)), Proof::OtherMessage);
        assert_eq!(prove(&place(7, 9, 90), 7, 8, None), Proof::Beyond);
        assert_eq!(prove(&place(7, 5, 50), 7, 8, None), Proof::Valid, "trimmed, same epoch");
        assert_eq!(prove(&place(7, 5, 50), 9, 8, None), Proof::Unknown);
        assert_eq!(prove(&place(0, 0, 0), 9, 8, None), Proof::Valid);
    }
}
