//! Where an address is, by a database in the MaxMind format, offline.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use maxminddb::{PathElement, Reader, path};

use crate::analytics::Place;

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub(crate) struct GeoError {
    path: String,
    source: maxminddb::MaxMindDbError,
}

/// The database, whole in memory.
pub(crate) struct Geo {
    reader: Reader<Vec<u8>>,
}

impl Geo {
    /// Reads it; blocks.
    pub(crate) fn open(path: &Path) -> Result<Self, GeoError> {
        let failed = |source| GeoError { path: path.display().to_string(), source };
        Ok(Self { reader: Reader::open_readfile(path).map_err(failed)? })
    }

    /// The province, by its English name, and the city; what is not known is
    /// empty.
    #[must_use]
    pub(crate) fn place(&self, address: IpAddr) -> Place {
        let province = self.name(address, &path!["subdivisions", 0, "names", "en"]);
        let city = self.name(address, &path!["city", "names", "en"]);
        Place::named(province.as_deref(), city.as_deref())
    }

    fn name(&self, address: IpAddr, path: &[PathElement<'_>]) -> Option<String> {
        self.reader.lookup(address.to_canonical()).ok()?.decode_path(path).ok()?
    }
}

impl fmt::Debug for Geo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Geo").field("database", &self.reader.metadata().database_type).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 127.0.0.0/8 is in Shenzhen, 10.1.0.0/16 somewhere in Zhejiang.
    const PLACES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/analytics/places.mmdb");

    #[test]
    fn what_is_known_is_told() {
        let geo = Geo::open(Path::new(PLACES)).unwrap();
        let place = |address: &str| {
            let Place { province, city } = geo.place(address.parse().unwrap());
            [province, city]
        };
        assert_eq!(place("127.0.0.1"), ["Guangdong", "Shenzhen"]);
        assert_eq!(place("::ffff:127.9.9.9"), ["Guangdong", "Shenzhen"]);
        assert_eq!(place("10.1.2.3"), ["Zhejiang", ""]);
        for unknown in ["10.2.0.1", "8.8.8.8", "::1", "2001:db8::1"] {
            assert_eq!(place(unknown), ["", ""], "{unknown}");
        }
    }

    #[test]
    fn what_is_no_database_is_named() {
        for path in ["Cargo.toml", "tests/no-such-file"] {
            let error = Geo::open(Path::new(path)).unwrap_err().to_string();
            assert!(error.starts_with(path), "{error}");
        }
    }
}
