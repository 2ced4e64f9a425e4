//! Chance that can be repeated, and what it does to inputs.

/// xorshift64*.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Spreads small seeds; zero would stay zero for ever.
        Self((seed ^ 0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 up to, not including, `end`; 0 when `end` is.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        ((self.next() >> 32) as usize) % end.max(1)
    }
}

/// Bytes where rules change: lengths, flags, opcodes, ends of ranges.
const TELLING: [u8; 16] = [0, 1, 2, 8, 9, 10, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x82, 0x88, 0xfd, 0xfe, 0xff];
const LONGEST: usize = 4096;
const MOST_STEPS: usize = 6;

/// One input of the corpus, changed a little.
pub(crate) fn mutant(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    // Long inputs are replayed as they are; mutating them costs too much.
    bytes.truncate(LONGEST);
    for _ in 0..=random.below(MOST_STEPS) {
        step(&mut bytes, corpus, random);
    }
    bytes.truncate(LONGEST);
    bytes
}

fn step(bytes: &mut Vec<u8>, corpus: &[Vec<u8>], random: &mut Random) {
    // The head of a frame decides; half of the changes go there.
    let reach = if random.below(2) == 0 { bytes.len().min(16) } else { bytes.len() };
    let at = random.below(reach);
    let end = at + random.below((bytes.len() - at).min(64) + 1);
    match random.below(8) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
        1 if at < bytes.len() => bytes[at] = TELLING[random.below(TELLING.len())],
        2 if at < bytes.len() => bytes[at] = random.next() as u8,
        3 => bytes.insert(at, TELLING[random.below(TELLING.len())]),
        4 => drop(bytes.drain(at..end)),
        5 => {
            let again = bytes[at..end].to_vec();
            drop(bytes.splice(at..at, again));
        }
        6 => bytes.truncate(end),
        _ => {
            let other = &corpus[random.below(corpus.len())];
            let from = random.below(other.len().min(LONGEST) + 1);
            let other = &other[from..other.len().min(LONGEST)];
            drop(bytes.splice(at..end, other.iter().copied()));
        }
    }
}
