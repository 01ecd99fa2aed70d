//! A `tokenizer.json`: its bytes in; ids of texts and texts of ids out.
//!
//! The work is that of the crate `tokenizers`, the library whose files these are. Two of its settings are switched off, as
//! transformers does: truncation and padding, which some files ask for and which belong to training.

use super::{TextError, sound};

/// The file's name in a model's folder.
pub const TOKENIZER: &str = "tokenizer.json";

/// What a decoder writes for bytes that are no character, or not yet.
const REPLACEMENT: char = '\u{fffd}';

/// Text to tokens and back.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
}

impl Tokenizer {
    /// The tokenizer that the bytes of a file are; errors call it `file`.
    pub fn parse(file: &str, json: &[u8]) -> Result<Tokenizer, TextError> {
        let fail = |reason: String| TextError::Tokenizer {
            file: file.into(),
            reason,
        };
        sound::before(json).map_err(fail)?;
        let mut inner = tokenizers::Tokenizer::from_bytes(json).map_err(|e| fail(e.to_string()))?;
        sound::after(&inner).map_err(fail)?;
        inner
            .with_truncation(None)
            .map_err(|e| fail(e.to_string()))?;
        inner.with_padding(None);
        Ok(Tokenizer { inner })
    }

    /// The ids of a text, with those that the tokenizer puts around it if `add_special`. Special tokens that the text spells
    /// out are those tokens.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let encoding = self.inner.encode_fast(text, add_special);
        let encoding = encoding.map_err(|e| TextError::Encode(e.to_string()))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of ids. Special tokens have none, nor have ids that the tokenizer does not know: models have more rows than
    /// tokens.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        let text = self.inner.decode(ids, true);
        text.map_err(|e| TextError::Decode(e.to_string()))
    }

    /// The text of ids that come one by one.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream {
            tokenizer: self,
            ids: Vec::new(),
            given: 0,
        }
    }

    /// How many tokens there are, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether a model of `vocab_size` rows has all of these ids.
    ///
    /// Asked of ids and not of the tokenizer: there are models whose tokenizer has more tokens than they have rows, which
    /// matters to nobody who does not write them.
    pub fn check(&self, ids: &[u32], vocab_size: u64) -> Result<(), TextError> {
        match ids.iter().find(|id| u64::from(**id) >= vocab_size) {
            None => Ok(()),
            Some(&id) => Err(TextError::BeyondVocabulary {
                id,
                token: self.token(id).unwrap_or_default(),
                vocab_size,
            }),
        }
    }

    /// The id of a token, by how it is written in the file.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// How a token is written in the file.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// The text of ids that come one by one, in pieces that are whole characters.
///
/// Not the stream of `tokenizers`: that one fails where a byte that comes later takes back a character which was given, as
/// models do that have lost the thread, and keeps what is pending to itself at the end.
#[derive(Clone, Debug)]
pub struct TextStream<'t> {
    tokenizer: &'t Tokenizer,
    /// The ids of the last piece, which decide how the next one begins (a space, or none), and those after it.
    ids: Vec<u32>,
    /// How many of the ids belong to the last piece.
    given: usize,
}

impl TextStream<'_> {
    /// What one more id adds; `None` where it adds nothing, or ends in the middle of a character.
    pub fn step(&mut self, id: u32) -> Result<Option<String>, TextError> {
        self.ids.push(id);
        let piece = self.pending()?;
        if piece.is_empty() || piece.ends_with(REPLACEMENT) {
            return Ok(None);
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(Some(piece))
    }

    /// What is still pending when no more ids come: characters that were never completed.
    pub fn finish(self) -> Result<Option<String>, TextError> {
        let rest = self.pending()?;
        Ok(Some(rest).filter(|rest| !rest.is_empty()))
    }

    fn pending(&self) -> Result<String, TextError> {
        let before = self.tokenizer.decode(&self.ids[..self.given])?;
        let mut all = self.tokenizer.decode(&self.ids)?;
        if !all.starts_with(&before) {
            // What was given stays given.
            return self.tokenizer.decode(&self.ids[self.given..]);
        }
        Ok(all.split_off(before.len()))
    }
}
