//! Texts to token ids, as BERT does it.

use std::collections::HashMap;
use std::fmt;

use tokenizers::AddedToken;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;

use super::vocabulary::{SPECIAL_TOKENS, Vocabulary};
use crate::error::{Error, Result};
use crate::models::TextBatch;

/// Longer words are unknown without looking; the limit of the published BERTs.
const LONGEST_WORD: usize = 100;
/// `[CLS]` and `[SEP]`.
const FRAME: usize = 2;
/// Characters of a text that an error shows.
const SHOWN: usize = 60;

/// Splits texts into tokens: cleaned, lower-cased, split at spaces and punctuation, then into the longest known pieces.
#[derive(Clone)]
pub struct Tokenizer {
    pieces: tokenizers::Tokenizer,
    vocabulary: Vocabulary,
    longest: usize,
    first: u32,
    last: u32,
}

impl Tokenizer {
    /// A tokenizer with this vocabulary, whose texts have at most `longest` tokens.
    ///
    /// # Panics
    /// If the vocabulary lacks `[UNK]`, `[CLS]` or `[SEP]`, which [`Vocabulary`] never does, or `longest` is below 3.
    pub fn new(vocabulary: Vocabulary, longest: usize) -> Self {
        assert!(longest > FRAME, "{longest} tokens leave no room for a text");
        let ids = WordPiece::read_bytes(vocabulary.to_lines().as_bytes());
        let model = WordPiece::builder()
            .vocab(ids.expect("memory can be read"))
            .unk_token("[UNK]".to_owned())
            .max_input_chars_per_word(LONGEST_WORD)
            .build()
            .expect("nothing is read");
        let mut pieces = tokenizers::Tokenizer::new(model);
        let normalizer = BertNormalizer::new(true, true, None, vocabulary.lower_case());
        pieces
            .with_normalizer(Some(normalizer))
            .expect("no token was added yet");
        pieces.with_pre_tokenizer(Some(BertPreTokenizer));
        let special = SPECIAL_TOKENS
            .iter()
            .filter(|token| vocabulary.id(token).is_some());
        pieces
            .add_special_tokens(special.map(|&token| AddedToken::from(token, true)))
            .expect("they are in the vocabulary");
        let id = |token| vocabulary.id(token).expect("a vocabulary has it");
        Self {
            first: id("[CLS]"),
            last: id("[SEP]"),
            pieces,
            vocabulary,
            longest,
        }
    }

    /// Token ids of a text between `[CLS]` and `[SEP]`; what is beyond the longest length is cut off.
    ///
    /// # Errors
    /// [`Error::Tokenize`]
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .pieces
            .encode_fast(text, false)
            .map_err(|source| Error::Tokenize {
                text: text.chars().take(SHOWN).collect(),
                source,
            })?;
        let room = self.longest - FRAME;
        let kept = encoding.get_ids().iter().copied().take(room);
        Ok(std::iter::once(self.first)
            .chain(kept)
            .chain([self.last])
            .collect())
    }

    /// Token ids of several texts.
    ///
    /// # Errors
    /// [`Error::Tokenize`]
    ///
    /// # Panics
    /// If there is no text.
    pub fn encode_batch<T: AsRef<str>>(&self, texts: &[T]) -> Result<TextBatch> {
        // Sentences of reports repeat.
        let mut known = HashMap::new();
        let mut ids: Vec<Vec<u32>> = Vec::with_capacity(texts.len());
        for (index, text) in texts.iter().enumerate() {
            let text = text.as_ref();
            let encoded = match known.get(text) {
                Some(&same) => Vec::clone(&ids[same]),
                None => self.encode(text)?,
            };
            known.entry(text).or_insert(index);
            ids.push(encoded);
        }
        Ok(TextBatch::new(&ids))
    }

    /// The vocabulary.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer")
            .field("tokens", &self.vocabulary.tokens().len())
            .field("longest", &self.longest)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer(longest: usize) -> Tokenizer {
        Tokenizer::new(
            Vocabulary::learn(&["lung lung nodule nodule"], 200),
            longest,
        )
    }

    fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
        let ids = tokenizer.encode(text).unwrap();
        ids.iter()
            .map(|&id| tokenizer.vocabulary().tokens()[id as usize].clone())
            .collect()
    }

    #[test]
    fn a_text_stands_between_cls_and_sep() {
        let tokenizer = tokenizer(512);
        assert_eq!(
            tokens(&tokenizer, "LUNG nodule"),
            ["[CLS]", "lung", "nodule", "[SEP]"]
        );
        assert_eq!(
            tokens(&tokenizer, "l\u{fb}ng"),
            ["[CLS]", "lung", "[SEP]"],
            "accents go"
        );
        assert_eq!(tokens(&tokenizer, "42"), ["[CLS]", "[UNK]", "[SEP]"]);
        assert_eq!(tokens(&tokenizer, ""), ["[CLS]", "[SEP]"]);
    }

    #[test]
    fn a_long_text_is_cut_before_its_sep() {
        let text = "lung ".repeat(100);
        assert_eq!(
            tokens(&tokenizer(4), &text),
            ["[CLS]", "lung", "lung", "[SEP]"]
        );
    }
}
