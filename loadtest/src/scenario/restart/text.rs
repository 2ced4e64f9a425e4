//! What is said: every byte follows from who says it and how often he has
//! spoken, so that every byte can be checked.

/// Longest filling, bytes.
const MOST: u64 = 700;
/// Length of what a slow reader is sent at a time, bytes.
const CHUNK: usize = 24 * 1024;
/// So many at a time: what a kernel takes for a reader with a small buffer,
/// 128 KiB, and the least that is more.
pub(super) const CHUNKS: u32 = 6;

/// What `user` says as number `n`.
pub(super) fn message(user: u64, n: u32) -> String {
    let seed = user.wrapping_mul(31).wrapping_add(u64::from(n).wrapping_mul(97));
    let length = usize::try_from(seed % MOST).unwrap_or_default();
    format!("{user}/{n}/{}", filling(seed, length))
}

/// What slow readers are sent before hot restart `round`.
pub(super) fn chunk(round: u32, n: u32) -> String {
    let head = format!("{round}/{n}/");
    let rest = CHUNK.saturating_sub(head.len());
    head + &filling(u64::from(round * CHUNKS + n), rest)
}

fn filling(seed: u64, length: usize) -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvw";
    let start = usize::try_from(seed % 23).unwrap_or_default();
    let letters = LETTERS.repeat((start + length).div_ceil(LETTERS.len()));
    letters.into_iter().skip(start).take(length).map(char::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_alike() {
        assert_ne!(message(7, 1), message(7, 2));
        assert_ne!(message(7, 1), message(8, 1));
        assert_eq!(chunk(3, 1).len(), CHUNK);
        assert_ne!(chunk(3, 1)[10..], chunk(3, 2)[10..]);
    }
}
