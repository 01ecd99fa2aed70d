//! Names on the Hub: ids of repositories, revisions, commits. Text in, a name that is safe in a URL and in a path out.

use super::files::is_plain;
use std::fmt;

/// The branch that is meant where none is named.
pub const MAIN: &str = "main";

/// The id of a repository. Having one is the proof that it is spelled as the Hub allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoId(String);

impl RepoId {
    /// `name` or `organization/name`, by the rules of huggingface_hub; `None` for what cannot be an id.
    pub fn parse(id: &str) -> Option<RepoId> {
        let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        let outer = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let part = |part: &str| {
            (1..=96).contains(&part.len())
                && part.chars().all(inner)
                && part.starts_with(outer)
                && part.ends_with(outer)
        };
        let parts: Vec<&str> = id.split('/').collect();
        let fits = parts.len() <= 2
            && parts.into_iter().all(part)
            && !id.contains("--")
            && !id.contains("..")
            && !id.ends_with(".git");
        fits.then(|| RepoId(id.into()))
    }

    /// The id as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The repository as `hf-hub` knows it.
    pub(super) fn repo(&self) -> hf_hub::Repo {
        hf_hub::Repo::model(self.0.clone())
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether a revision is a commit itself: 40 hexadecimal digits.
pub fn is_commit(revision: &str) -> bool {
    revision.len() == 40
        && revision
            .chars()
            .all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c))
}

/// Whether a revision can be a branch, a tag, a commit or a pull request: it becomes a path below `refs`.
pub fn is_revision(revision: &str) -> bool {
    is_plain(revision) && revision.len() <= 255 && !revision.contains(char::is_whitespace)
}

/// A commit as people quote it.
pub fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_names_with_at_most_one_organization() {
        for id in ["gpt2", "org/name", "a/b.c-d_e", "_x/y", "0/1"] {
            assert!(RepoId::parse(id).is_some(), "{id}");
        }
    }

    #[test]
    fn what_could_lead_elsewhere_is_no_id() {
        let long = "x".repeat(97);
        for id in [
            "", "/", "a/", "/a", "a/b/c", "../a", "a..b", "a--b", "-a", "a.", "a.git", "a b",
            "a\u{e9}", "a?b", "a%2fb", "a\\b", "a/..", &long,
        ] {
            assert!(RepoId::parse(id).is_none(), "{id}");
        }
    }

    #[test]
    fn revisions_stay_below_their_folder() {
        for revision in ["main", "refs/pr/1", "v1.0", &"a".repeat(40)] {
            assert!(is_revision(revision), "{revision}");
        }
        for revision in ["", "../main", "/main", "a b", "a/../b"] {
            assert!(!is_revision(revision), "{revision}");
        }
    }
}
