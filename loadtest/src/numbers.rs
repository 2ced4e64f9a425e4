//! Numbers, for eyes.

/// Exact up to 2^53.
pub(crate) fn float(count: u64) -> f64 {
    let part = |bits: u64| f64::from(u32::try_from(bits).unwrap_or(u32::MAX));
    part(count >> 32) * 4_294_967_296.0 + part(count & 0xffff_ffff)
}

/// Whole, with commas.
pub(crate) fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut out = String::from(sign);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// As many digits as tell something.
pub(crate) fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1_000.0 => thousands(value),
        middle if middle >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.3}"),
    }
}

/// Microseconds in the unit that fits.
pub(crate) fn micros(us: u64) -> String {
    match us {
        0..1_000 => format!("{us} µs"),
        1_000..1_000_000 => format!("{:.1} ms", float(us) / 1e3),
        _ => format!("{:.1} s", float(us) / 1e6),
    }
}

/// The middle one; of two, their mean. 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or_default();
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => at(odd / 2),
        even => f64::midpoint(at(even / 2 - 1), at(even / 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(thousands(1_234_567.0), "1,234,567");
        assert_eq!(thousands(-12.4), "-12");
        assert_eq!(short(0.12345), "0.123");
        assert_eq!(micros(1_500), "1.5 ms");
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(float(1 << 40), 1_099_511_627_776.0);
    }
}
