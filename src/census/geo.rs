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
