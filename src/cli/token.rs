//! `tidegate token`: mints a development token.
//!
//! For trying things out against a gateway with an HS256 key. Real tokens come
//! from whoever logs users in.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::ArgGroup;
use jsonwebtoken::{EncodingKey, Header, encode};
use serde::Serialize;

use crate::config::{AuthConfig, Flags, JwtAlgorithm, JwtConfig, JwtKey, Secret, process_env, resolve};
use crate::types::{DeviceId, UserId, unix_ms};

/// Mint a development token (HS256) and print it.
#[derive(Debug, clap::Args)]
#[group(skip)]
#[command(group = ArgGroup::new("key").required(true).args(["secret", "secret_file", "config"]))]
pub struct TokenArgs {
    /// User the token is for.
    #[arg(long)]
    user: String,
    /// Device the token is for [default: the client names it].
    #[arg(long)]
    device: Option<String>,
    /// How long the token is good for.
    #[arg(long, default_value = "1h", value_parser = humantime::parse_duration)]
    ttl: Duration,
    /// Secret to sign with, at least 32 bytes. Others on this machine can see it.
    #[arg(long)]
    secret: Option<String>,
    /// File with the secret to sign with.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// Configuration of the gateway; its first HS256 key signs, its issuer and
    /// audience are the defaults.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Issuer (iss).
    #[arg(long)]
    issuer: Option<String>,
    /// Audience (aud).
    #[arg(long)]
    audience: Option<String>,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    iat: i64,
    exp: i64,
}

/// Prints one line, the token.
pub fn run(args: TokenArgs) -> anyhow::Result<()> {
    println!("{}", mint(&args)?);
    Ok(())
}

fn mint(args: &TokenArgs) -> anyhow::Result<String> {
    let user = UserId::parse(&args.user)?;
    let device = args.device.as_deref().map(DeviceId::new).transpose()?;
    let jwt = signing_config(args)?;
    let key = jwt.keys.iter().find(|key| key.algorithm == JwtAlgorithm::Hs256);
    let key = key.context("the configuration has no HS256 key")?;
    key.decoding_key()?;

    let iat = unix_ms() / 1000;
    let claims = Claims {
        sub: user.to_string(),
        device: device.as_ref().map(DeviceId::as_str),
        iss: args.issuer.as_deref().or(jwt.issuer.as_deref()),
        aud: args.audience.as_deref().or(jwt.audience.as_deref()),
        iat,
        exp: iat.saturating_add(i64::try_from(args.ttl.as_secs()).unwrap_or(i64::MAX)),
    };
    let header = Header { kid: key.kid.clone(), ..Header::new(JwtAlgorithm::Hs256.library()) };
    let secret = EncodingKey::from_secret(key.material.expose().as_bytes());
    encode(&header, &claims, &secret).context("cannot sign")
}

/// What the gateway will judge the token by, as far as it is known here.
fn signing_config(args: &TokenArgs) -> anyhow::Result<JwtConfig> {
    if let Some(path) = &args.config {
        let flags = Flags { config: Some(path.clone()), ..Flags::default() };
        return match resolve(&flags, process_env())?.auth {
            AuthConfig::Jwt(jwt) => Ok(jwt),
            AuthConfig::None => bail!("{}: auth.mode is \"none\": no token is needed", path.display()),
        };
    }
    let secret = match (&args.secret, &args.secret_file) {
        (Some(secret), _) => secret.clone(),
        (None, Some(path)) => {
            let text =
                std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            text.trim().to_owned()
        }
        (None, None) => bail!("one of --secret, --secret-file and --config is required"),
    };
    let key = JwtKey { algorithm: JwtAlgorithm::Hs256, kid: None, material: Secret::new(secret) };
    Ok(JwtConfig { keys: vec![key], issuer: None, audience: None, leeway: Duration::ZERO })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::ws::auth::Authenticator;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        token: TokenArgs,
    }

    fn mint_line(line: &str) -> anyhow::Result<String> {
        mint(&Line::try_parse_from(format!("token {line}").split_whitespace())?.token)
    }

    #[test]
    fn a_gateway_of_the_same_configuration_accepts_it() {
        let file = "tests/config/valid/full.toml";
        let flags = Flags { config: Some(file.into()), ..Flags::default() };
        let gateway = Authenticator::new(&resolve(&flags, []).unwrap().auth).unwrap();
        let token = mint_line(&format!("--user 1 --device phone --ttl 90s --config {file}")).unwrap();
        let identity = gateway.verify(&token, None).unwrap();
        assert_eq!((identity.user.get(), identity.device.as_str()), (1, "phone"));

        let by_hand = "--user 1 --secret 0123456789abcdef0123456789abcdef --issuer https://id.example";
        assert!(gateway.verify(&mint_line(&format!("{by_hand} --audience tidegate")).unwrap(), None).is_ok());
        assert!(gateway.verify(&mint_line(by_hand).unwrap(), None).is_err());
    }

    #[test]
    fn mistakes_are_named() {
        for (line, expected) in [
            ("--user 1", "--secret"),
            ("--user 1 --secret a --config b", "cannot be used with"),
            ("--user 0 --secret-file tests/keys/hs256.secret", "user id must be"),
            ("--user 1 --device a/b --secret-file tests/keys/hs256.secret", "device id must be"),
            ("--user 1 --ttl 1 --secret-file tests/keys/hs256.secret", "--ttl"),
            ("--user 1 --secret short", "at least 32 bytes"),
            ("--user 1 --config tests/config/valid/empty.toml", "auth.mode is \"none\""),
            ("--user 1 --secret-file nowhere", "cannot read nowhere"),
        ] {
            let error = format!("{:#}", mint_line(line).unwrap_err());
            assert!(error.contains(expected), "{line}: {error}");
        }
        assert!(mint_line("--user 1 --secret-file tests/keys/hs256.secret").is_ok());
    }
}
