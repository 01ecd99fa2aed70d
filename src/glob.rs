//! Patterns with `*` for any text and `?` for one character, held against whole texts.

/// Whether a pattern matches the whole text.
pub fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    // The usual two-pointer walk: on a mismatch the last star takes one more character.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        if p < pattern.len() && pattern[p] == '*' {
            star = Some((p, t));
            p += 1;
        } else if p < pattern.len() && (pattern[p] == '?' || pattern[p] == text[t]) {
            p += 1;
            t += 1;
        } else if let Some((at, from)) = star {
            star = Some((at, from + 1));
            p = at + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
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
    }
}
