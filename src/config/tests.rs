use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn fixture(name: &str) -> Flags {
    Flags { config: Some(format!("tests/config/{name}.toml").into()), ..Flags::default() }
}

fn fixtures(folder: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from("tests/config").join(folder);
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn errors(flags: &Flags, pairs: &[(&str, &str)]) -> String {
    resolve(flags, env(pairs)).unwrap_err().to_string()
}

#[test]
fn nothing_given_is_the_documented_default() {
    let config = resolve(&Flags::default(), []).unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:7700");
    assert_eq!(config.admin.to_string(), "127.0.0.1:7701");
    assert_eq!(config.data_dir, PathBuf::from("./tidegate-data"));
    assert!(config.redis.is_none() && config.gateway_id.is_none() && config.admin_api_key.is_none());
    assert!(matches!(config.auth, AuthConfig::None));
    assert_eq!(config.heartbeat, Duration::from_secs(30));
    assert_eq!(config.limits.max_frame_bytes, 131_072);
    assert_eq!(config.limits.frames_per_second, Some(200));
    assert!(!config.limits.limit_loopback);
    assert!(config.workers > 0);
}

#[test]
fn every_valid_fixture_resolves() {
    let files = fixtures("valid");
    for path in &files {
        let flags = Flags { config: Some(path.clone()), ..Flags::default() };
        resolve(&flags, []).unwrap_or_else(|errors| panic!("{}:\n{errors}", path.display()));
    }
    assert_eq!(files.len(), 6);
}

#[test]
fn every_invalid_fixture_says_what_it_expects() {
    let files = fixtures("invalid");
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# expect: ").unwrap();
        let flags = Flags { config: Some(path.clone()), ..Flags::default() };
        let errors = errors(&flags, &[]);
        assert!(errors.contains(expected), "{} expects {expected:?}:\n{errors}", path.display());
        assert_eq!(errors.lines().count(), 1, "{}:\n{errors}", path.display());
        assert!(errors.starts_with(&path.display().to_string()), "{errors}");
        assert!(!errors.contains("hunter2"), "{errors}");
    }
    assert_eq!(files.len(), 47);
}

#[test]
fn flag_over_environment_over_file_over_default() {
    let mut flags = fixture("valid/layers");
    let listen = |flags: &Flags, pairs: &[(&str, &str)]| resolve(flags, env(pairs)).unwrap().listen.port();
    assert_eq!(listen(&flags, &[]), 1001);
    let pairs = [("TIDEGATE_LISTEN", "127.0.0.1:1002")];
    assert_eq!(listen(&flags, &pairs), 1002);
    flags.listen = Some("127.0.0.1:1003".into());
    assert_eq!(listen(&flags, &pairs), 1003);

    let config = resolve(&flags, env(&[("TIDEGATE_REDIS_PREFIX", "b:")])).unwrap();
    let redis = config.redis.unwrap();
    assert_eq!((redis.url.expose(), redis.prefix.as_str()), ("redis://from-file", "b:"));
    assert_eq!(redis.timeout, Duration::from_secs(1));
}

#[test]
fn the_environment_names_the_file_and_holds_values_that_are_not_text() {
    let config = resolve(
        &Flags::default(),
        env(&[
            ("PATH", "/bin"),
            ("TIDEGATE_COMMIT", "abc"),
            ("TIDEGATE_CONFIG", "tests/config/valid/layers.toml"),
            ("TIDEGATE_GATEWAY_ID", "7"),
            ("TIDEGATE_WORKERS", "3"),
            ("TIDEGATE_ORIGINS", "['https://a.example', 'http://[::1]:80']"),
            ("TIDEGATE_LIMITS_FRAMES_PER_SECOND", "0"),
            ("TIDEGATE_HEARTBEAT_INTERVAL", "1s"),
            ("TIDEGATE_AUTH_MODE", "jwt"),
            ("TIDEGATE_AUTH_KEYS", "[{algorithm = 'HS256', secret_file = 'tests/keys/hs256.secret'}]"),
            ("TIDEGATE_LOG_FORMAT", "json"),
        ]),
    )
    .unwrap();
    assert_eq!(config.listen.port(), 1001);
    assert_eq!(config.gateway_id.unwrap().as_str(), "7");
    assert_eq!((config.workers, config.origins.len()), (3, 2));
    assert_eq!((config.limits.frames_per_second, config.limits.limit_loopback), (None, true));
    assert_eq!(config.heartbeat, Duration::from_secs(1));
    assert!(config.log_json);
    assert!(matches!(config.auth, AuthConfig::Jwt(jwt) if jwt.keys.len() == 1));
}

#[test]
fn every_key_has_a_variable() {
    // An unknown key is answered with the known ones; each must be reachable.
    let known = |variable: &str| {
        let error = errors(&Flags::default(), &[(variable, "x")]);
        let list =
            error.split_once("expected one of ").unwrap_or_else(|| error.split_once("expected ").unwrap()).1;
        list.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut variables = 0;
    for key in known("TIDEGATE_X") {
        let variable = format!("TIDEGATE_{}", key.to_uppercase());
        if !super::layers::TABLES.contains(&key.as_str()) {
            variables += 1;
            let found = resolve(&Flags::default(), env(&[(&variable, "1")])).map_err(|e| e.to_string());
            assert!(!found.is_err_and(|e| e.contains("unknown field")), "{variable}");
            continue;
        }
        for inner in known(&format!("{variable}_X")) {
            let variable = format!("{variable}_{}", inner.to_uppercase());
            variables += 1;
            let found = resolve(&Flags::default(), env(&[(&variable, "1")])).map_err(|e| e.to_string());
            assert!(!found.is_err_and(|e| e.contains("unknown field")), "{variable}");
        }
    }
    assert_eq!(variables, 54);
}

#[test]
fn all_errors_come_at_once_each_with_its_origin() {
    let flags = Flags {
        listen: Some("localhost:7700".into()),
        redis: Some("redis+cluster://a:hunter2@b".into()),
        ..fixture("several")
    };
    let pairs = [
        ("TIDEGATE_LIMITS_HANDSHAKE", "1h"),
        ("TIDEGATE_NO_SUCH", "1"),
        ("TIDEGATE_REDIS", "redis://:hunter2@b"),
    ];
    let errors = errors(&flags, &pairs);
    for line in [
        "--listen: `localhost:7700` is not IP:port",
        "--redis: redis+cluster:// is not built yet",
        "TIDEGATE_LIMITS_HANDSHAKE: 1h is not within 100ms to 1m",
        "TIDEGATE_NO_SUCH: unknown field `no_such`, expected one of `listen`",
        "TIDEGATE_REDIS: invalid type: string, expected a table",
        "tests/config/several.toml: limits.nope: unknown field `nope`, expected one of `max_frame_bytes`",
        "tests/config/several.toml: limits.outbox_frames: 1 is not within 16 to 1000000",
        "tests/config/several.toml: workers: 0 is not within 1 to 1024",
    ] {
        assert!(errors.lines().any(|found| found.starts_with(line)), "{line} not in\n{errors}");
    }
    assert_eq!(errors.lines().count(), 8, "{errors}");
    assert!(!errors.contains("hunter2"), "{errors}");
}

#[test]
fn strangers_need_credentials_unless_forced() {
    let mut flags = Flags { listen: Some("0.0.0.0:7700".into()), ..Flags::default() };
    assert!(
        errors(&flags, &[]).starts_with("--listen: 0.0.0.0:7700 is not loopback and auth.mode is \"none\"")
    );
    flags.insecure_auth_none = true;
    assert!(resolve(&flags, []).is_ok());

    flags = Flags { admin: Some("[::]:7701".into()), insecure_auth_none: true, ..Flags::default() };
    assert!(errors(&flags, &[]).starts_with("--admin: [::]:7701 is not loopback: set admin.api_key"));
    assert!(resolve(&flags, env(&[("TIDEGATE_ADMIN_API_KEY", "0123456789abcdef")])).is_ok());
    assert!(errors(&flags, &[("TIDEGATE_ADMIN_API_KEY", "0123456789abcde")]).contains("16 to 256"));

    let mapped = Flags { listen: Some("[::ffff:127.0.0.1]:0".into()), ..Flags::default() };
    assert!(resolve(&mapped, []).is_ok());
}

#[test]
fn a_missing_file_is_an_error() {
    assert!(errors(&fixture("nowhere"), &[]).starts_with("tests/config/nowhere.toml: cannot read: "));
}

#[test]
fn secrets_stay_out_of_debug_output() {
    let pairs =
        env(&[("TIDEGATE_REDIS_URL", "redis://:hunter2@h"), ("TIDEGATE_ADMIN_API_KEY", "hunter2-hunter2-")]);
    assert!(!format!("{:?}", resolve(&Flags::default(), pairs).unwrap()).contains("hunter2"));
}
