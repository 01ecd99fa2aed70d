//! Patterns with `*` for any text and `?` for one character, held against whole texts.

/// Whether a pattern matches the whole text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (mut p, mut t) = (pattern.chars(), text.chars());
    // The usual two-pointer walk: on a mismatch the last star takes one more character.
    let mut star = None;
    loop {
        let (pattern_rest, text_rest) = (p.clone(), t.clone());
        match (p.next(), t.next()) {
            (Some('*'), _) => {
                t = text_rest.clone();
                star = Some((p.clone(), text_rest));
            }
            (None, None) => return true,
            (Some('?'), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            (_, None) if pattern_rest.as_str().bytes().any(|b| b != b'*') => return false,
            _ => {
                let Some((after_star, from)) = &mut star else {
                    return false;
                };
                if from.next().is_none() {
                    return false;
                }
                (p, t) = (after_star.clone(), from.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_paths() {
        assert!(matches(
            "*.self_attn.*",
            "model.layers.0-31.self_attn.q_proj"
        ));
        assert!(matches("model", "model"));
        assert!(!matches("model", "model.layers"));
        assert!(matches("*?_proj", "q_proj"));
        assert!(!matches("*x", "abc"));
        assert!(matches("**", ""));
        assert!(matches("a*", "a"));
        assert!(!matches("a?", "a"));
        assert!(!matches("", "a"));
        assert!(matches("*a*b", "xaxbab"));
        assert!(!matches("*a*b", "xaxbac"));
        assert!(matches("?x", "\u{e9}x"));
    }
}
