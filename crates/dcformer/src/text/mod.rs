//! Texts: tokens for the text encoder, and the prompts of zero-shot detection.

mod prompts;
mod report;
mod tokenizer;
mod vocabulary;

pub use prompts::{Prompts, Template};
pub use report::ReportText;
pub(crate) use report::sentences;
pub use tokenizer::Tokenizer;
pub use vocabulary::{SPECIAL_TOKENS, Vocabulary};
