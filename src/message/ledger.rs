//! Places, packed: most of what a connection in many conversations takes.
//! Pure.

use super::Place;

/// Bits of a history, unix microseconds: they last until 2112.
const EPOCH_BITS: u32 = 52;
/// Bits of a position: 17,000 million messages in one conversation.
const SEQ_BITS: u32 = 34;

/// A place in 22 bytes, where a [`Place`] has 32.
#[derive(Debug, Clone, Copy)]
struct Packed {
    key: [u8; 8],
    /// Epoch, seq and id, from the lowest bit on.
    rest: [u8; 14],
}

impl Packed {
    /// `None` = it does not fit.
    fn of(place: &Place) -> Option<Self> {
        let seq = u64::try_from(place.seq).ok().filter(|seq| seq >> SEQ_BITS == 0)?;
        let epoch = Some(place.epoch).filter(|epoch| epoch >> EPOCH_BITS == 0)?;
        let rest = u128::from(epoch)
            | u128::from(seq) << EPOCH_BITS
            | u128::from(place.id) << (EPOCH_BITS + SEQ_BITS);
        Some(Self { key: place.key.to_le_bytes(), rest: *rest.to_le_bytes().first_chunk()? })
    }

    const fn key(&self) -> u64 {
        u64::from_le_bytes(self.key)
    }

    fn rest(&self) -> u128 {
        let mut rest = [0; 16];
        if let Some(low) = rest.first_chunk_mut() {
            *low = self.rest;
        }
        u128::from_le_bytes(rest)
    }

    /// Whether both are at one position of one history.
    fn is_level(&self, other: &Self) -> bool {
        (self.rest() ^ other.rest()) << (128 - EPOCH_BITS - SEQ_BITS) == 0
    }

    fn place(&self) -> Place {
        let rest = self.rest();
        let bits = |from: u32, many: u32| u64::try_from(rest >> from & ((1 << many) - 1)).unwrap_or(0);
        Place {
            key: self.key(),
            epoch: bits(0, EPOCH_BITS),
            seq: i64::try_from(bits(EPOCH_BITS, SEQ_BITS)).unwrap_or(0),
            id: u32::try_from(rest >> (EPOCH_BITS + SEQ_BITS)).unwrap_or(0),
        }
    }
}

/// Messages of one history that follow one another, as one step of a place.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stride {
    before: Packed,
    behind: Packed,
}

impl Stride {
    /// From `before` the first to `behind` the last of them, in one
    /// conversation; `None` = one of the two is not kept.
    #[must_use]
    pub(crate) fn new(before: &Place, behind: &Place) -> Option<Self> {
        Some(Self { before: Packed::of(before)?, behind: Packed::of(behind)? })
    }
}

/// Places by their keys, in as much memory as they take: a conversation more
/// or less is rare, and a connection long. A single one lies in it, where a
/// fan-out does not wait for other memory.
#[derive(Debug)]
pub(super) struct Ledger(List);

/// With each, whether there are no other conversations: there it takes no room.
#[derive(Debug)]
enum List {
    One(Packed, bool),
    Many(Box<[Packed]>, bool),
}

impl Default for Ledger {
    fn default() -> Self {
        Self(List::Many(Box::default(), false))
    }
}

impl Ledger {
    /// Of these, which are in order and of different conversations; `complete`
    /// = there are no others. One that does not fit is not in it.
    pub(super) fn of(places: &[Place], complete: bool) -> Self {
        let mut ledger = Self::default();
        ledger.replace(places.iter().filter_map(Packed::of), places.len(), complete);
        ledger
    }

    /// Holds these instead; where they are fewer than `many` there are others.
    /// Allocated once and at that size: an allocator that is asked to shrink
    /// what is less than half empty leaves it as large as it is.
    fn replace(&mut self, all: impl Iterator<Item = Packed>, many: usize, complete: bool) {
        let mut list = Vec::with_capacity(many);
        list.extend(all);
        let complete = complete && list.len() == many;
        self.0 = match list.as_slice() {
            [one] => List::One(*one, complete),
            _ => List::Many(list.into_boxed_slice(), complete),
        };
    }

    const fn all(&self) -> &[Packed] {
        match &self.0 {
            List::One(one, _) => std::slice::from_ref(one),
            List::Many(list, _) => list,
        }
    }

    const fn all_mut(&mut self) -> &mut [Packed] {
        match &mut self.0 {
            List::One(one, _) => std::slice::from_mut(one),
            List::Many(list, _) => list,
        }
    }

    /// Whether there are no other conversations.
    pub(super) const fn is_complete(&self) -> bool {
        let (List::One(_, complete) | List::Many(_, complete)) = &self.0;
        *complete
    }

    const fn lack(&mut self) {
        let (List::One(_, complete) | List::Many(_, complete)) = &mut self.0;
        *complete = false;
    }

    /// How many there are.
    pub(super) const fn len(&self) -> usize {
        self.all().len()
    }

    /// All of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Place> {
        self.all().iter().map(Packed::place)
    }

    fn find(&self, key: u64) -> Result<usize, usize> {
        self.all().binary_search_by_key(&key, Packed::key)
    }

    /// The place in one conversation.
    pub(super) fn get(&self, key: u64) -> Option<Place> {
        let at = self.find(key).ok()?;
        self.all().get(at).map(Packed::place)
    }

    /// Notes a place, of a conversation that is not there only if it `may_grow`.
    /// One that does not fit is not known any more, and what is here not
    /// complete.
    pub(super) fn put(&mut self, place: &Place, may_grow: bool) {
        let Some(packed) = Packed::of(place) else {
            self.remove(place.key);
            return self.lack();
        };
        match self.find(place.key) {
            Ok(at) => {
                if let Some(known) = self.all_mut().get_mut(at) {
                    *known = packed;
                }
            }
            Err(at) if may_grow => {
                let known = std::mem::take(self);
                let (before, behind) = known.all().split_at_checked(at).unwrap_or_default();
                let all = before.iter().chain([&packed]).chain(behind);
                self.replace(all.copied(), known.len() + 1, known.is_complete());
            }
            Err(_) => self.lack(),
        }
    }

    /// Makes a step, if the place is where it begins, whichever message that
    /// is; returns whether.
    pub(super) fn stride(&mut self, stride: &Stride) -> bool {
        let Ok(at) = self.find(stride.before.key()) else { return false };
        let place = self.all_mut().get_mut(at).filter(|place| place.is_level(&stride.before));
        place.map(|place| *place = stride.behind).is_some()
    }

    /// Forgets a conversation.
    pub(super) fn remove(&mut self, key: u64) {
        if self.find(key).is_ok() {
            let known = std::mem::take(self);
            let left = known.all().iter().filter(|packed| packed.key() != key);
            self.replace(left.copied(), known.len() - 1, known.is_complete());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::place::id_check;
    use super::*;

    fn place(key: u64, epoch: u64, seq: i64) -> Place {
        Place { key, epoch, seq, id: id_check(seq + 1) }
    }

    #[test]
    fn a_place_takes_22_bytes_and_comes_out_as_it_went_in() {
        assert_eq!(size_of::<Packed>(), 22);
        let most = Place { key: u64::MAX, epoch: (1 << 52) - 1, seq: (1 << 34) - 1, id: (1 << 26) - 1 };
        for place in [place(1, 2, 3), place(0, 0, 0), most] {
            assert_eq!(Packed::of(&place).map(|packed| packed.place()), Some(place));
        }
        for too_much in [place(1, 1 << 52, 1), place(1, 1, 1 << 34), place(1, 1, -1)] {
            assert!(Packed::of(&too_much).is_none());
        }
    }

    #[test]
    fn ids_are_told_apart_by_what_is_kept_of_them() {
        let ids = (0..1_000_i64).flat_map(|ms| [0, 1, 4_096].map(|rest| (ms << 22) + (7 << 40) + rest));
        let checks: std::collections::HashSet<u32> = ids.map(id_check).collect();
        assert!(checks.len() > 2_995, "{}", checks.len());
        assert!((0..1_000).all(|id| (id_check(id) == 0) == (id == 0) && id_check(id) >> 26 == 0));
    }

    #[test]
    fn a_stride_begins_where_the_place_is() {
        let mut ledger = Ledger::of(&[place(3, 1, 4), place(7, 1, 1)], true);
        let stride =
            |epoch, from, to| Stride::new(&Place { id: 0, ..place(3, epoch, from) }, &place(3, epoch, to));
        for (epoch, from) in [(1, 3), (1, 5), (2, 4)] {
            assert!(!ledger.stride(&stride(epoch, from, 9).unwrap()), "{epoch} {from}");
        }
        assert!(ledger.stride(&stride(1, 4, 9).unwrap()));
        assert_eq!((ledger.get(3), ledger.get(7)), (Some(place(3, 1, 9)), Some(place(7, 1, 1))));
        assert!(stride(1, 4, 1 << 40).is_none());
        assert!(!Ledger::default().stride(&stride(1, 9, 10).unwrap()));
    }

    #[test]
    fn conversations_come_and_go_in_order() {
        let mut ledger = Ledger::of(&[place(3, 1, 1), place(7, 1, 1)], true);
        for key in [5, 1, 9, 5] {
            ledger.put(&place(key, 1, 4), true);
        }
        ledger.put(&place(9, 1, 5), false);
        assert!(ledger.is_complete());
        ledger.put(&place(4, 1, 1), false);
        assert!(!ledger.is_complete() && ledger.get(4).is_none(), "no room");
        ledger.remove(3);
        ledger.remove(4);
        let keys: Vec<_> = ledger.iter().map(|place| (place.key, place.seq)).collect();
        assert_eq!(keys, [(1, 4), (5, 4), (7, 1), (9, 5)]);
        ledger.put(&place(9, 1, 1 << 40), true);
        assert!(ledger.get(9).is_none(), "it does not fit");
    }

    #[test]
    fn one_is_as_good_as_many_and_needs_no_more_memory() {
        assert_eq!(size_of::<Ledger>(), 24);
        let mut ledger = Ledger::of(&[], true);
        for seq in [1, 2] {
            ledger.put(&place(3, 1, seq), true);
            assert!(matches!(ledger.0, List::One(..)));
        }
        assert!(ledger.stride(&Stride::new(&place(3, 1, 2), &place(3, 1, 5)).unwrap()));
        ledger.put(&place(1, 1, 1), true);
        let keys = |ledger: &Ledger| ledger.iter().map(|place| (place.key, place.seq)).collect::<Vec<_>>();
        assert_eq!(keys(&ledger), [(1, 1), (3, 5)]);
        ledger.remove(1);
        assert_eq!(keys(&ledger), [(3, 5)]);
        assert!(matches!(ledger.0, List::One(_, true)));
        ledger.remove(3);
        assert!(ledger.is_complete() && ledger.len() == 0);
        assert!(!Ledger::of(&[place(1, 1, 1), place(2, 1, 1 << 40)], true).is_complete(), "one does not fit");
    }
}
