//! The query of the upgrade request. Unknown parameters are ignored.

/// What the query may say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Query {
    pub(super) user: Option<String>,
    pub(super) device: Option<String>,
    pub(super) access_token: Option<String>,
    pub(super) resume: bool,
}

impl Query {
    /// Of a query string; of a parameter given twice the first wins.
    pub(super) fn parse(query: &str) -> Self {
        let mut parsed = Self::default();
        for (key, value) in form_urlencoded::parse(query.as_bytes()) {
            let slot = match &*key {
                "user" => &mut parsed.user,
                "device" => &mut parsed.device,
                "access_token" => &mut parsed.access_token,
                "resume" => {
                    parsed.resume |= value == "1";
                    continue;
                }
                _ => continue,
            };
            slot.get_or_insert_with(|| value.into_owned());
        }
        parsed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_parameters_are_decoded_and_the_rest_ignored() {
        let query = Query::parse("user=42&device=my%2Dphone&x=1&user=43&resume=1");
        assert_eq!(query.user.as_deref(), Some("42"));
        assert_eq!(query.device.as_deref(), Some("my-phone"));
        assert!(query.resume && query.access_token.is_none());
    }
}
