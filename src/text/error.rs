//! What can be wrong with a tokenizer, its settings, a chat.

use crate::json::JsonError;

/// Why text and tokens do not come together.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TextError {
    /// A `tokenizer.json` that is cut, or of a kind that is not known.
    #[error("{file}: not a tokenizer: {reason}")]
    Tokenizer {
        /// The file.
        file: String,
        /// What its reader says.
        reason: String,
    },
    /// A tokenizer of whole words without a word for those it does not know.
    #[error("the text has no tokens: {0}")]
    Encode(String),
    /// A decoder that cannot go with the tokens.
    #[error("the tokens have no text: {0}")]
    Decode(String),
    /// The tokenizer of another model.
    #[error(
        "token {id} (`{token}`) is beyond the model's vocabulary of {vocab_size}; the tokenizer is another model's"
    )]
    BeyondVocabulary {
        /// The id.
        id: u32,
        /// What the tokenizer calls it.
        token: String,
        /// Rows of the model's embedding.
        vocab_size: u64,
    },
    /// A settings file that is not UTF-8.
    #[error("{file}: not UTF-8 text")]
    NotText {
        /// The file.
        file: String,
    },
    /// A settings file that is not JSON.
    #[error("{file}: {error}")]
    Json {
        /// The file.
        file: String,
        /// Where and why.
        error: JsonError,
    },
    /// `"eos_token_id": "</s>"`
    #[error("{file}: `{key}` is {found}; it should be {expected}")]
    Setting {
        /// The file.
        file: String,
        /// The key.
        key: String,
        /// What stands there.
        found: String,
        /// What could.
        expected: &'static str,
    },
    /// `{% for message in messages %}` without an end.
    #[error("{file}: the chat template cannot be read: {reason}")]
    Template {
        /// The file.
        file: String,
        /// Where and why.
        reason: String,
    },
    /// A template that calls `raise_exception`, because roles do not alternate.
    #[error("{file}: the chat template refuses the messages: {reason}")]
    Render {
        /// The file.
        file: String,
        /// Where and why.
        reason: String,
    },
}
