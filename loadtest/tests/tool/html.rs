//! Whether a page is well-formed, as far as ours go.

/// Elements without an end.
const ALONE: [&str; 1] = ["meta"];

/// Every element that begins ends, in order.
pub fn assert_well_formed(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!doctype html>").expect("a doctype");
    while let Some(at) = rest.find('<') {
        let (text, tag) = rest.split_at(at);
        assert!(open.last() == Some(&"style") || !text.contains('>'), "a stray > in {text:?}");
        let end = tag.find('>').expect("a tag without an end");
        let inner = &tag[1..end];
        rest = &tag[end + 1..];
        let name = inner.trim_start_matches('/').split([' ', '/', '\n']).next().unwrap();
        if inner.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> ends something else");
        } else if !inner.ends_with('/') && !ALONE.contains(&name) {
            open.push(name);
        }
        assert!(inner.matches('"').count().is_multiple_of(2), "a quote is open in <{inner}>");
    }
    assert!(open.is_empty(), "never ended: {open:?}");
}
