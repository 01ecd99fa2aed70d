//! What a runner of language models needs around the numbers: text to tokens and back, chats as prompts, the next token.
//!
//! Bytes of files and texts in, values out; files are read by [`source`](crate::source), the date is told by the caller.
//!
//! - `tokenizer.rs`: ids of a text, text of ids, whole or as it comes
//! - `sound.rs`: what must hold of a tokenizer's file beyond what its reader checks
//! - `settings.rs`: what `tokenizer_config.json` and `generation_config.json` say
//! - `chat.rs`: a chat template and what it makes of messages
//! - `sampling.rs`: the next token, of its logits
//! - `error.rs`: what can be wrong

mod chat;
mod error;
mod sampling;
mod settings;
mod sound;
mod tokenizer;

pub use chat::{ChatTemplate, Message, Prompt};
pub use error::TextError;
pub use sampling::{Sampler, Sampling, SamplingError};
pub use settings::{
    CHAT_TEMPLATE, GENERATION_CONFIG, TOKENIZER_CONFIG, TokenizerConfig, stop_tokens,
};
pub use tokenizer::{TOKENIZER, TextStream, Tokenizer};
