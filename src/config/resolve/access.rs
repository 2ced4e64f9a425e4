//! Who may come in: keys, secrets, and listeners that anybody reaches.

use std::net::SocketAddr;
use std::path::Path;

use super::Resolver;
use crate::config::file::{AdminTable, AuthTable, KeyTable, ModeWord};
use crate::config::{AuthConfig, JwtAlgorithm, JwtConfig, JwtKey, Secret};

impl Resolver {
    pub(super) fn admin_api_key(&mut self, admin: &AdminTable) -> Option<Secret> {
        let key = self.secret(
            "admin.api_key",
            admin.api_key.as_ref(),
            "admin.api_key_file",
            admin.api_key_file.as_deref(),
        );
        if let Some(key) = &key {
            let key = key.expose();
            if !(16..=256).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
                self.fault("admin.api_key", "an API key has 16 to 256 visible ASCII characters");
            }
        } else if !is_loopback(admin.listen.0)
            && !self.origins.configured("admin.api_key")
            && !self.origins.configured("admin.api_key_file")
        {
            let message =
                format!("{} is not loopback: set admin.api_key or admin.api_key_file", admin.listen.0);
            self.fault("admin.listen", message);
        }
        key
    }

    pub(super) fn auth(&mut self, table: AuthTable) -> AuthConfig {
        let leeway = self.time("auth.leeway", table.leeway, 0..=300_000);
        for (key, value) in [("auth.issuer", &table.issuer), ("auth.audience", &table.audience)] {
            if value.as_deref() == Some("") {
                self.fault(key, "must not be empty");
            }
        }
        let written = self.origins.configured("auth.keys");
        let keys: Vec<_> =
            table.keys.into_iter().enumerate().filter_map(|(i, key)| self.key(i, key)).collect();
        for (i, key) in keys.iter().enumerate() {
            if key.kid.is_some() && keys.iter().take(i).any(|other| other.kid == key.kid) {
                self.fault("auth.keys", format!("key {i}: another key has the same kid"));
            }
        }
        match table.mode {
            ModeWord::Jwt if !written => {
                self.fault("auth.mode", "\"jwt\" needs at least one of [[auth.keys]]")
            }
            ModeWord::None if written && !self.origins.configured("auth.mode") => {
                self.fault("auth.keys", "keys are used with auth.mode = \"jwt\" only; set auth.mode");
            }
            _ => {}
        }
        match table.mode {
            ModeWord::None => AuthConfig::None,
            ModeWord::Jwt => {
                AuthConfig::Jwt(JwtConfig { keys, issuer: table.issuer, audience: table.audience, leeway })
            }
        }
    }

    pub(super) fn key(&mut self, i: usize, table: KeyTable) -> Option<JwtKey> {
        let symmetric = table.algorithm == JwtAlgorithm::Hs256;
        let secret = (table.secret, table.secret_file);
        let public = (table.public_key, table.public_key_file);
        let ((text, file), (no_text, no_file), word) =
            if symmetric { (secret, public, "secret") } else { (public, secret, "public_key") };
        let algorithm = table.algorithm.as_str();
        let material = match (text, file) {
            _ if no_text.is_some() || no_file.is_some() => {
                Err(format!("{algorithm} takes {word} or {word}_file only"))
            }
            (Some(text), None) => Ok(text),
            (None, Some(path)) => read_secret(&path),
            _ => Err(format!("{algorithm} needs one of {word} and {word}_file")),
        };
        let key = material.and_then(|material| {
            let key = JwtKey { algorithm: table.algorithm, kid: table.kid, material };
            key.decoding_key().map_err(|error| error.to_string())?;
            Ok(key)
        });
        self.good("auth.keys", key.map_err(|message| format!("key {i}: {message}")))
    }

    /// The one of two ways to give a secret that was used.
    pub(super) fn secret(
        &mut self,
        key: &str,
        text: Option<&Secret>,
        file_key: &str,
        file: Option<&Path>,
    ) -> Option<Secret> {
        match (text, file) {
            (Some(_), Some(_)) => {
                let message = format!("set one of this and {}, not both", self.origins.of(file_key));
                self.fault(key, message);
                None
            }
            (Some(text), None) => Some(text.clone()),
            (None, Some(path)) => self.good(file_key, read_secret(path)),
            (None, None) => None,
        }
    }

    pub(super) fn loopback_only(&mut self, key: &str, address: SocketAddr) {
        if !is_loopback(address) {
            let message = format!(
                "{address} is not loopback and auth.mode is \"none\": set auth.mode = \"jwt\", \
                 or pass --insecure-auth-none to let anybody be any user"
            );
            self.fault(key, message);
        }
    }
}

fn is_loopback(address: SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
    let text = text.trim();
    if text.is_empty() { Err(format!("{} is empty", path.display())) } else { Ok(Secret::new(text)) }
}
