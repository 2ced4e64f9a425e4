//! Which paths a source file names, read from its tokens: comments, texts and
//! `use` groups are seen through, macros are not expanded.

/// A path as it stands in the code, `use` groups taken apart; the last segment
/// of a macro call ends in `!`. A lone name is a path of one segment.
pub(crate) type Path = Vec<String>;

/// A path and the inline modules around it.
pub(crate) struct Named {
    pub(crate) path: Path,
    pub(crate) inline: Vec<String>,
}

/// Every path of a file, in order.
pub(crate) fn named(source: &str) -> Vec<Named> {
    let tokens = tokens(source);
    let mut reader = Reader { tokens: &tokens, at: 0, depth: 0, inline: Vec::new(), found: Vec::new() };
    reader.read();
    reader.found
}

struct Reader<'a> {
    tokens: &'a [String],
    at: usize,
    depth: usize,
    /// Inline modules with the depth of their braces.
    inline: Vec<(String, usize)>,
    found: Vec<Named>,
}

impl Reader<'_> {
    fn read(&mut self) {
        while let Some(token) = self.token(0) {
            match token {
                "{" => self.depth += 1,
                "}" => {
                    self.depth = self.depth.saturating_sub(1);
                    let depth = self.depth;
                    self.inline.retain(|(_, at)| *at <= depth);
                }
                "mod" if self.token(2) == Some("{") => {
                    let name = self.token(1).unwrap_or_default().to_owned();
                    self.inline.push((name, self.depth + 1));
                    self.at += 1;
                }
                word if is_word(word) => {
                    self.path(&mut Vec::new());
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Reads one path, or each of a group behind `prefix`.
    fn path(&mut self, prefix: &mut Path) {
        let length = prefix.len();
        while let Some(word) = self.token(0).filter(|token| is_word(token)) {
            prefix.push(word.to_owned());
            self.at += 1;
            if self.token(0) != Some("::") {
                break;
            }
            self.at += 1;
        }
        if self.token(0) == Some("{") && self.at > 0 && self.tokens[self.at - 1] == "::" {
            self.at += 1;
            while let Some(token) = self.token(0).filter(|token| *token != "}") {
                if is_word(token) {
                    self.path(prefix);
                } else {
                    self.at += 1;
                }
            }
            self.at += 1;
        } else {
            if self.token(0) == Some("!") && self.token(1) != Some("=") {
                prefix.last_mut().unwrap().push('!');
            }
            let inline = self.inline.iter().map(|(name, _)| name.clone()).collect();
            self.found.push(Named { path: prefix.clone(), inline });
        }
        prefix.truncate(length);
    }

    fn token(&self, ahead: usize) -> Option<&str> {
        self.tokens.get(self.at + ahead).map(String::as_str)
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c == '_' || c.is_alphabetic())
}

/// Words, `::` and single marks; comments, texts and lifetimes are left out.
fn tokens(source: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        let size = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment(rest)
        } else if let Some(size) = text(rest) {
            size
        } else if c == '\'' {
            lifetime_or_character(rest)
        } else if c == '_' || c.is_alphanumeric() {
            let size = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            tokens.push(rest[..size].to_owned());
            size
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !c.is_whitespace() {
                tokens.push(c.to_string());
            }
            c.len_utf8()
        };
        rest = &rest[size..];
    }
    tokens
}

fn comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, _) in rest.char_indices() {
        if rest[at..].starts_with("/*") {
            depth += 1;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            if depth == 0 {
                return at + 2;
            }
        }
    }
    rest.len()
}

/// The size of a text literal of any kind, if one begins here.
fn text(rest: &str) -> Option<usize> {
    let body = rest.trim_start_matches(['b', 'c']);
    let prefix = rest.len() - body.len();
    if prefix > 1 {
        return None;
    }
    if let Some(raw) = body.strip_prefix('r') {
        let marks = raw.len() - raw.trim_start_matches('#').len();
        let open = raw[marks..].strip_prefix('"')?;
        let close = format!("\"{}", "#".repeat(marks));
        let end = open.find(&close).map_or(open.len(), |at| at + close.len());
        return Some(prefix + 1 + marks + 1 + end);
    }
    let mut characters = body.char_indices();
    if characters.next()?.1 != '"' {
        return None;
    }
    while let Some((at, c)) = characters.next() {
        match c {
            '\\' => drop(characters.next()),
            '"' => return Some(prefix + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

fn lifetime_or_character(rest: &str) -> usize {
    let mut characters = rest.char_indices().skip(1);
    match (characters.next(), characters.next()) {
        (Some((_, '\\')), Some((escaped, c))) => {
            let from = escaped + c.len_utf8();
            rest[from..].find('\'').map_or(rest.len(), |at| from + at + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}
