//! What a figure may be at most, or must be at least.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error};

use super::Figure;

/// `NAME<=VALUE` or `NAME>=VALUE`; NAME ends in `:ratio` for gateway / other,
/// in `:other` for what the gateway is compared with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limit {
    pub(crate) figure: String,
    of: Of,
    is_most: bool,
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Gateway,
    Other,
    Ratio,
}

impl Limit {
    /// What is held against it.
    pub(super) fn value(&self, figure: &Figure) -> Option<f64> {
        match self.of {
            Of::Gateway => figure.gateway.map(|spread| spread.median),
            Of::Other => figure.other.map(|spread| spread.median),
            Of::Ratio => figure.ratio,
        }
    }

    /// Whether `value` is within.
    pub(crate) fn holds(&self, value: f64) -> bool {
        if self.is_most { value <= self.bound } else { value >= self.bound }
    }
}

impl FromStr for Limit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let most = text.split_once("<=").map(|(name, bound)| (name, true, bound));
        let least = || text.split_once(">=").map(|(name, bound)| (name, false, bound));
        let (name, is_most, bound) = most.or_else(least).context("not NAME<=VALUE or NAME>=VALUE")?;
        let (figure, of) = match name.trim().split_once(':') {
            None => (name.trim(), Of::Gateway),
            Some((figure, "ratio")) => (figure, Of::Ratio),
            Some((figure, "other")) => (figure, Of::Other),
            Some((_, other)) => anyhow::bail!("{other}: neither ratio nor other"),
        };
        let bound = bound.trim().parse().context("not a number behind the comparison")?;
        Ok(Self { figure: figure.to_owned(), of, is_most, bound })
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match self.of {
            Of::Gateway => "",
            Of::Other => ":other",
            Of::Ratio => ":ratio",
        };
        write!(f, "{}{of} {} {}", self.figure, if self.is_most { "<=" } else { ">=" }, self.bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_and_held() {
        let limit: Limit = "cpuUsPerEcho:ratio<=2.5".parse().unwrap();
        assert!(limit.holds(2.5) && !limit.holds(2.6));
        assert_eq!(limit.to_string(), "cpuUsPerEcho:ratio <= 2.5");
        let least: Limit = "storedPerSecond >= 1000".parse().unwrap();
        assert!(least.holds(1000.0) && !least.holds(999.0));
        assert!("a:b<=1".parse::<Limit>().is_err());
        assert!("a=1".parse::<Limit>().is_err());
    }
}
