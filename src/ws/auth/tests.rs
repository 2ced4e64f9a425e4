use jsonwebtoken::{EncodingKey, Header as JwtHeader, encode};
use serde_json::json;

use super::*;
use crate::config::{KeyError, Secret};
use crate::types::unix_ms;

const SECRET: &str = include_str!("../../../tests/keys/hs256.secret");
const LEEWAY: i64 = 30;

fn material(algorithm: JwtAlgorithm) -> &'static str {
    match algorithm {
        JwtAlgorithm::Hs256 => SECRET,
        JwtAlgorithm::Rs256 => include_str!("../../../tests/keys/rs256.pub.pem"),
        JwtAlgorithm::Es256 => include_str!("../../../tests/keys/es256.pub.pem"),
        JwtAlgorithm::EdDsa => include_str!("../../../tests/keys/eddsa.pub.pem"),
    }
}

fn signer(algorithm: JwtAlgorithm) -> EncodingKey {
    match algorithm {
        JwtAlgorithm::Hs256 => EncodingKey::from_secret(SECRET.as_bytes()),
        JwtAlgorithm::Rs256 => {
            EncodingKey::from_rsa_pem(include_bytes!("../../../tests/keys/rs256.pem")).unwrap()
        }
        JwtAlgorithm::Es256 => {
            EncodingKey::from_ec_pem(include_bytes!("../../../tests/keys/es256.pem")).unwrap()
        }
        JwtAlgorithm::EdDsa => {
            EncodingKey::from_ed_pem(include_bytes!("../../../tests/keys/eddsa.pem")).unwrap()
        }
    }
}

const ALL: [JwtAlgorithm; 4] =
    [JwtAlgorithm::Hs256, JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa];

fn key(algorithm: JwtAlgorithm, kid: Option<&str>) -> JwtKey {
    JwtKey { algorithm, kid: kid.map(str::to_owned), material: Secret::new(material(algorithm)) }
}

fn config(keys: Vec<JwtKey>) -> JwtConfig {
    JwtConfig { keys, issuer: None, audience: None, leeway: Duration::from_secs(LEEWAY.unsigned_abs()) }
}

fn authenticator(config: JwtConfig) -> Authenticator {
    Authenticator::new(&AuthConfig::Jwt(config)).unwrap()
}

fn hs256() -> Authenticator {
    authenticator(config(vec![key(JwtAlgorithm::Hs256, None)]))
}

fn in_seconds(seconds: i64) -> i64 {
    unix_ms() / 1000 + seconds
}

/// Good claims for user 42, changed by `change`.
fn claims(change: Value) -> Value {
    let mut claims = json!({ "sub": "42", "exp": in_seconds(600) });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims
}

fn sign(algorithm: JwtAlgorithm, kid: Option<&str>, claims: &Value) -> String {
    let header = JwtHeader { kid: kid.map(str::to_owned), ..JwtHeader::new(algorithm.library()) };
    encode(&header, claims, &signer(algorithm)).unwrap()
}

/// The verdict of the HS256 authenticator on good claims with a change.
fn judge(change: Value) -> Result<Identity, AuthError> {
    hs256().verify(&sign(JwtAlgorithm::Hs256, None, &claims(change)), None)
}

/// A token with a header of one's own, signed by the HS256 secret.
fn forge(header: &Value, claims: &Value, secret: &[u8]) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, jsonwebtoken::Algorithm::HS256);
    format!("{message}.{}", signature.unwrap())
}

#[test]
fn every_algorithm_verifies_its_own_tokens_and_no_others() {
    let all = authenticator(config(ALL.map(|algorithm| key(algorithm, None)).to_vec()));
    for algorithm in ALL {
        let exp = in_seconds(60);
        let token = sign(algorithm, None, &claims(json!({ "exp": exp, "device": "phone" })));
        let expected = Identity {
            user: UserId::new(42).unwrap(),
            device: DeviceId::new("phone").unwrap(),
            expires_at: Some(exp + LEEWAY),
        };
        for other in ALL {
            let only = authenticator(config(vec![key(other, None)]));
            let verdict = only.verify(&token, None);
            let wanted = if other == algorithm { Ok(expected.clone()) } else { Err(AuthError::Algorithm) };
            assert_eq!(verdict, wanted, "{algorithm:?} judged by {other:?}");
        }
        assert_eq!(all.verify(&token, None), Ok(expected));
    }
}

#[test]
fn the_header_cannot_choose_how_it_is_verified() {
    let good = claims(json!({}));
    for alg in ["none", "None", "HS512", "RS384", "", "hs256"] {
        let token = forge(&json!({ "alg": alg }), &good, SECRET.as_bytes());
        assert_eq!(hs256().verify(&token, None), Err(AuthError::Algorithm), "{alg}");
        let (message, _) = token.rsplit_once('.').unwrap();
        assert_eq!(hs256().verify(&format!("{message}."), None), Err(AuthError::Algorithm), "{alg}");
    }
    // The public key, known to all, as the shared secret.
    let public = material(JwtAlgorithm::Rs256);
    let token = forge(&json!({ "alg": "HS256" }), &good, public.as_bytes());
    let rs256 = authenticator(config(vec![key(JwtAlgorithm::Rs256, None)]));
    assert_eq!(rs256.verify(&token, None), Err(AuthError::Algorithm));
    let both = authenticator(config(vec![key(JwtAlgorithm::Rs256, None), key(JwtAlgorithm::Hs256, None)]));
    assert_eq!(both.verify(&token, None), Err(AuthError::Signature));
    let token = forge(&json!({ "alg": "RS256" }), &good, public.as_bytes());
    assert_eq!(rs256.verify(&token, None), Err(AuthError::Signature));
}

#[test]
fn the_kid_selects_the_key() {
    let mut old = key(JwtAlgorithm::Hs256, Some("old"));
    old.material = Secret::new("an older secret, 0123456789abcdef");
    let keys = vec![old, key(JwtAlgorithm::Hs256, Some("new"))];
    let rotating = authenticator(config(keys));
    let verdict = |kid| rotating.verify(&sign(JwtAlgorithm::Hs256, kid, &claims(json!({}))), None);
    assert!(verdict(Some("new")).is_ok());
    assert!(verdict(None).is_ok(), "every key is tried");
    assert_eq!(verdict(Some("old")), Err(AuthError::Signature));
    assert_eq!(verdict(Some("newer")), Err(AuthError::UnknownKey));
    let nameless = sign(JwtAlgorithm::Hs256, Some("whatever"), &claims(json!({})));
    assert!(hs256().verify(&nameless, None).is_ok(), "a key without a kid answers to all");
}

#[test]
fn time_is_judged_with_leeway() {
    assert!(judge(json!({ "exp": in_seconds(-LEEWAY + 10) })).is_ok());
    assert_eq!(judge(json!({ "exp": in_seconds(-LEEWAY - 10) })), Err(AuthError::Expired));
    assert!(judge(json!({ "nbf": in_seconds(LEEWAY - 10) })).is_ok());
    assert_eq!(judge(json!({ "nbf": in_seconds(LEEWAY + 10) })), Err(AuthError::NotYetValid));
    assert_eq!(judge(json!({ "nbf": "soon" })), Err(AuthError::MissingClaim("nbf")));
    for exp in [json!(null), json!("tomorrow"), json!(-1)] {
        assert_eq!(judge(json!({ "exp": exp })), Err(AuthError::MissingClaim("exp")), "{exp}");
    }
}

#[test]
fn odd_but_legal_dates_are_read() {
    assert_eq!(
        judge(json!({ "exp": 4_000_000_000.75_f64 })).unwrap().expires_at,
        Some(4_000_000_000 + LEEWAY)
    );
    assert_eq!(judge(json!({ "exp": u64::MAX })).unwrap().expires_at, Some(i64::MAX));
    assert_eq!(judge(json!({ "exp": i64::MAX })).unwrap().expires_at, Some(i64::MAX));
}

#[test]
fn issuer_and_audience_are_required_when_configured() {
    let strict = authenticator(JwtConfig {
        issuer: Some("us".into()),
        audience: Some("chat".into()),
        ..config(vec![key(JwtAlgorithm::Hs256, None)])
    });
    let verdict = |change| strict.verify(&sign(JwtAlgorithm::Hs256, None, &claims(change)), None).map(|_| ());
    assert_eq!(verdict(json!({ "iss": "us", "aud": "chat" })), Ok(()));
    assert_eq!(verdict(json!({ "iss": "us", "aud": ["mail", "chat"] })), Ok(()));
    assert_eq!(verdict(json!({ "iss": "them", "aud": "chat" })), Err(AuthError::Issuer));
    assert_eq!(verdict(json!({ "iss": "us", "aud": "mail" })), Err(AuthError::Audience));
    assert_eq!(verdict(json!({ "aud": "chat" })), Err(AuthError::MissingClaim("iss")));
    assert_eq!(verdict(json!({ "iss": "us" })), Err(AuthError::MissingClaim("aud")));
    assert_eq!(judge(json!({ "aud": "chat" })), Err(AuthError::Audience), "meant for somebody else");
    assert!(judge(json!({ "iss": "anybody" })).is_ok());
}

#[test]
fn the_subject_is_a_canonical_user_id() {
    for sub in [
        json!(""),
        json!("0"),
        json!("-1"),
        json!("042"),
        json!("9223372036854775808"),
        json!("x"),
        json!(42),
    ] {
        assert_eq!(judge(json!({ "sub": sub })), Err(AuthError::User), "{sub}");
    }
    assert_eq!(judge(json!({ "sub": null })), Err(AuthError::MissingClaim("sub")));
    assert_eq!(judge(json!({ "sub": "9223372036854775807" })).unwrap().user.get(), i64::MAX);
}

#[test]
fn the_device_is_the_tokens_then_the_querys_then_default() {
    let named = sign(JwtAlgorithm::Hs256, None, &claims(json!({ "device": "phone" })));
    let nameless = sign(JwtAlgorithm::Hs256, None, &claims(json!({})));
    let device =
        |token: &str, query| hs256().verify(token, query).map(|identity| identity.device.to_string());
    assert_eq!(device(&named, Some("tv")).unwrap(), "phone");
    assert_eq!(device(&nameless, Some("tv")).unwrap(), "tv");
    assert_eq!(device(&nameless, Some("")).unwrap(), "default");
    assert_eq!(device(&nameless, None).unwrap(), "default");
    assert_eq!(device(&nameless, Some("a b")), Err(AuthError::Device));
    for bad in [json!(""), json!("a b"), json!("x".repeat(65)), json!(1)] {
        assert_eq!(judge(json!({ "device": bad })), Err(AuthError::Device), "{bad}");
    }
}

#[test]
fn what_is_no_token_is_malformed() {
    let good = sign(JwtAlgorithm::Hs256, None, &claims(json!({})));
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    for bad in ["", ".", "..", "a.b", "a.b.c", "é.é.é", &good.replace('.', ""), &format!("{header}.e30")] {
        assert_eq!(hs256().verify(bad, None), Err(AuthError::Malformed), "{bad}");
    }
    let crit = forge(&json!({ "alg": "HS256", "crit": ["exp"] }), &claims(json!({})), SECRET.as_bytes());
    assert_eq!(hs256().verify(&crit, None), Err(AuthError::Malformed));
    let not_claims = forge(&json!({ "alg": "HS256" }), &json!([1]), SECRET.as_bytes());
    assert_eq!(hs256().verify(&not_claims, None), Err(AuthError::Malformed));
}

#[test]
fn a_changed_token_is_refused() {
    let good = sign(JwtAlgorithm::Hs256, None, &claims(json!({})));
    let other = sign(JwtAlgorithm::Hs256, None, &claims(json!({ "sub": "1" })));
    let (message, _) = other.rsplit_once('.').unwrap();
    let (_, signature) = good.rsplit_once('.').unwrap();
    assert_eq!(hs256().verify(&format!("{message}.{signature}"), None), Err(AuthError::Signature));
    assert_eq!(hs256().verify(&format!("{message}."), None), Err(AuthError::Signature));
}

#[test]
fn tokens_have_a_longest_length() {
    let at_limit = |size| sign(JwtAlgorithm::Hs256, None, &claims(json!({ "x": "x".repeat(size) })));
    let fits = (2800..3000).map(at_limit).rfind(|token| token.len() <= 4096).unwrap();
    assert!(fits.len() > 4090);
    assert!(hs256().verify(&fits, None).is_ok());
    assert_eq!(hs256().verify(&at_limit(3000), None), Err(AuthError::TooLong));
}

#[test]
fn mode_none_takes_the_client_at_its_word() {
    let none = Authenticator::new(&AuthConfig::None).unwrap();
    assert_eq!((none.mode(), hs256().mode()), (AuthMode::None, AuthMode::Jwt));
    let identity = none.anonymous(Some("42"), None).unwrap();
    assert_eq!((identity.user.get(), identity.device.as_str(), identity.expires_at), (42, "default", None));
    assert_eq!(none.anonymous(None, Some("phone")), Err(AuthError::UserMissing));
    assert_eq!(none.anonymous(Some("0"), None), Err(AuthError::User));
    assert_eq!(none.anonymous(Some("1"), Some("a b")), Err(AuthError::Device));
    assert_eq!(none.verify("a.b.c", None), Err(AuthError::TokenNotAccepted));
    assert_eq!(hs256().anonymous(Some("42"), None), Err(AuthError::TokenRequired));
}

#[test]
fn bad_keys_are_found_at_set_up() {
    let setup = |keys| Authenticator::new(&AuthConfig::Jwt(config(keys))).map(|_| ()).unwrap_err();
    let with = |algorithm, text: &str| JwtKey { algorithm, kid: None, material: Secret::new(text) };
    assert_eq!(setup(vec![]), AuthSetupError::NoKeys);
    let truncated_ed25519 = "-----BEGIN PUBLIC KEY-----\nMAwwBQYDK2VwAwMAAQI=\n-----END PUBLIC KEY-----\n";
    for (bad, source) in [
        (with(JwtAlgorithm::Hs256, "0123456789abcdef0123456789abcde"), KeyError::ShortSecret),
        (with(JwtAlgorithm::Rs256, "x"), KeyError::NotPublicPem),
        (with(JwtAlgorithm::Rs256, material(JwtAlgorithm::Es256)), KeyError::WrongKind(JwtAlgorithm::Rs256)),
        (with(JwtAlgorithm::Es256, material(JwtAlgorithm::EdDsa)), KeyError::WrongKind(JwtAlgorithm::Es256)),
        (with(JwtAlgorithm::EdDsa, truncated_ed25519), KeyError::WrongKind(JwtAlgorithm::EdDsa)),
    ] {
        let keys = vec![key(JwtAlgorithm::Hs256, None), bad];
        assert_eq!(setup(keys), AuthSetupError::Key { index: 1, source });
    }
}
