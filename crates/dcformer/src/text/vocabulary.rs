//! A WordPiece vocabulary: read from `vocab.txt` or `tokenizer.json`, or learnt from texts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
};

use crate::error::{Error, Result};

/// Tokens with a meaning of their own, in the order in which a learnt vocabulary begins.
pub const SPECIAL_TOKENS: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
/// What BERT cannot do without.
const REQUIRED_TOKENS: [&str; 3] = ["[UNK]", "[CLS]", "[SEP]"];
/// Marks a piece that continues a word.
const CONTINUATION: &str = "##";

/// Tokens by id, and whether texts are lower-cased before they are looked up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vocabulary {
    tokens: Vec<String>,
    lower_case: bool,
}

impl Vocabulary {
    /// Reads `vocab.txt`, one token a line, or Hugging Face's `tokenizer.json`.
    ///
    /// `vocab.txt` does not say whether texts are lower-cased: `lower_case` does. `tokenizer.json` says it.
    ///
    /// # Errors
    /// If the file cannot be read, is no WordPiece vocabulary, or lacks `[UNK]`, `[CLS]` or `[SEP]`.
    pub fn read(path: &Path, lower_case: bool) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let vocabulary = if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            parse_tokenizer_json(path, &bytes)?
        } else {
            parse_lines(path, bytes, lower_case)?
        };
        for required in REQUIRED_TOKENS {
            if vocabulary.id(required).is_none() {
                return Err(Error::Vocabulary {
                    path: path.to_owned(),
                    found: format!("the token {required} is missing"),
                    expected: "the vocab.txt or tokenizer.json of a BERT",
                });
            }
        }
        Ok(vocabulary)
    }

    /// Learns at most `size` pieces from `texts`: byte-pair merges, most frequent first, ties in alphabetical order, so
    /// the same texts give the same vocabulary on every machine. Texts are lower-cased.
    ///
    /// Special tokens and single characters are always there, even if they are more than `size`.
    pub fn learn<T: AsRef<str>>(texts: &[T], size: usize) -> Self {
        let mut learner = Learner::new(&count_words(texts));
        while learner.pieces.len() < size {
            let Some(pair) = learner.most_frequent_pair() else {
                break;
            };
            learner.merge(pair);
        }
        Self {
            tokens: learner.pieces,
            lower_case: true,
        }
    }

    /// Tokens by id.
    pub fn tokens(&self) -> &[String] {
        &self.tokens
    }

    /// Whether texts are lower-cased before they are looked up.
    pub fn lower_case(&self) -> bool {
        self.lower_case
    }

    /// The id of `token`; of one that is there twice the later, as Hugging Face's readers have it.
    pub fn id(&self, token: &str) -> Option<u32> {
        let index = self.tokens.iter().rposition(|known| known == token)?;
        u32::try_from(index).ok()
    }

    /// The content of `vocab.txt`.
    pub fn to_lines(&self) -> String {
        self.tokens
            .iter()
            .map(|token| format!("{token}\n"))
            .collect()
    }
}

fn parse_lines(path: &Path, bytes: Vec<u8>, lower_case: bool) -> Result<Vocabulary> {
    let text = String::from_utf8(bytes).map_err(|_| Error::Vocabulary {
        path: path.to_owned(),
        found: "not UTF-8 text".to_owned(),
        expected: "one token a line",
    })?;
    let tokens: Vec<String> = text
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    Ok(Vocabulary { tokens, lower_case })
}

fn parse_tokenizer_json(path: &Path, bytes: &[u8]) -> Result<Vocabulary> {
    let wrong = |found: String| Error::Vocabulary {
        path: path.to_owned(),
        found,
        expected: "a tokenizer.json with a WordPiece model and ids from 0 without gaps",
    };
    let json: serde_json::Value = serde_json::from_slice(bytes).map_err(|source| Error::Json {
        path: path.to_owned(),
        source,
    })?;
    let model = &json["model"];
    // Files of the first releases do not name the type.
    let is_word_piece = match &model["type"] {
        serde_json::Value::Null => model["continuing_subword_prefix"] == CONTINUATION,
        kind => kind == "WordPiece",
    };
    if !is_word_piece {
        return Err(wrong(format!("the model's type is {}", model["type"])));
    }
    let vocab = model["vocab"]
        .as_object()
        .ok_or_else(|| wrong("there is no model.vocab".to_owned()))?;
    let mut tokens = vec![None; vocab.len()];
    for (token, id) in vocab {
        if token.trim_end() != token || token.contains(['\n', '\r']) {
            return Err(wrong(format!("the token {token:?} does not fit on a line")));
        }
        let place = id
            .as_u64()
            .and_then(|id| usize::try_from(id).ok())
            .and_then(|id| tokens.get_mut(id))
            .ok_or_else(|| wrong(format!("the id of {token:?} is {id} of {}", vocab.len())))?;
        *place = Some(token.clone());
    }
    let tokens = tokens.into_iter().collect::<Option<Vec<_>>>();
    Ok(Vocabulary {
        tokens: tokens.ok_or_else(|| wrong("two tokens have one id".to_owned()))?,
        // BertNormalizer's default, where the file says nothing.
        lower_case: json["normalizer"]["lowercase"].as_bool().unwrap_or(true),
    })
}

/// Words of the texts, as BERT splits them, and how often each occurs.
fn count_words<T: AsRef<str>>(texts: &[T]) -> BTreeMap<String, u64> {
    let normalizer = BertNormalizer::new(true, true, None, true);
    let mut counts = BTreeMap::new();
    for text in texts {
        let mut normalized = NormalizedString::from(text.as_ref());
        normalizer
            .normalize(&mut normalized)
            .expect("BERT's normalisation has no way to fail");
        let mut split = PreTokenizedString::from(normalized);
        BertPreTokenizer
            .pre_tokenize(&mut split)
            .expect("BERT's splitting has no way to fail");
        for (word, ..) in split.get_splits(OffsetReferential::Normalized, OffsetType::Byte) {
            *counts.entry(word.to_owned()).or_default() += 1;
        }
    }
    counts
}

type Pair = (usize, usize);

/// Words as sequences of pieces, which merging shortens.
struct Learner {
    pieces: Vec<String>,
    words: Vec<(Vec<usize>, u64)>,
}

impl Learner {
    fn new(counts: &BTreeMap<String, u64>) -> Self {
        let characters: BTreeSet<String> = counts.keys().flat_map(|word| split(word)).collect();
        let pieces: Vec<String> = SPECIAL_TOKENS
            .iter()
            .map(|&token| token.to_owned())
            .chain(characters)
            .collect();
        let ids: HashMap<&str, usize> = pieces
            .iter()
            .enumerate()
            .map(|(id, piece)| (piece.as_str(), id))
            .collect();
        let words = counts
            .iter()
            .map(|(word, &count)| {
                (
                    split(word)
                        .iter()
                        .map(|piece| ids[piece.as_str()])
                        .collect(),
                    count,
                )
            })
            .collect();
        Self { pieces, words }
    }

    fn most_frequent_pair(&self) -> Option<Pair> {
        let mut counts: HashMap<Pair, u64> = HashMap::new();
        for (word, count) in &self.words {
            for pair in word.windows(2) {
                *counts.entry((pair[0], pair[1])).or_default() += count;
            }
        }
        let text = |(left, right): Pair| (&self.pieces[left], &self.pieces[right]);
        counts
            .into_iter()
            // A pair that occurs once teaches nothing but that word.
            .filter(|&(_, count)| count > 1)
            .max_by(|(a, a_count), (b, b_count)| {
                a_count.cmp(b_count).then_with(|| text(*b).cmp(&text(*a)))
            })
            .map(|(pair, _)| pair)
    }

    fn merge(&mut self, (left, right): Pair) {
        let tail = self.pieces[right].trim_start_matches(CONTINUATION);
        let piece = format!("{}{tail}", self.pieces[left]);
        // Two ways of building one piece share its id.
        let id = self
            .pieces
            .iter()
            .position(|known| *known == piece)
            .unwrap_or_else(|| {
                self.pieces.push(piece);
                self.pieces.len() - 1
            });
        for (word, _) in &mut self.words {
            let mut merged = Vec::with_capacity(word.len());
            let mut at = 0;
            while at < word.len() {
                if word[at..].starts_with(&[left, right]) {
                    merged.push(id);
                    at += 2;
                } else {
                    merged.push(word[at]);
                    at += 1;
                }
            }
            *word = merged;
        }
    }
}

/// The characters of a word, all but the first marked as continuing it.
fn split(word: &str) -> Vec<String> {
    let mark = |at| if at == 0 { "" } else { CONTINUATION };
    word.chars()
        .enumerate()
        .map(|(at, character)| format!("{}{character}", mark(at)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequent_words_become_tokens_and_rare_ones_stay_in_pieces() {
        let texts = ["The nodule is small.", "A nodule, a nodule!", "Rare."];
        let vocabulary = Vocabulary::learn(&texts, 1000);
        assert_eq!(&vocabulary.tokens()[..5], SPECIAL_TOKENS);
        assert!(vocabulary.id("nodule").is_some());
        assert!(vocabulary.id("rare").is_none());
        assert!(vocabulary.id("r").is_some() && vocabulary.id("##r").is_some());
        assert!(vocabulary.id("N").is_none(), "texts are lower-cased");
    }

    #[test]
    fn the_size_stops_the_merging_but_never_drops_a_character() {
        let texts = ["abab abab abab"];
        assert_eq!(
            Vocabulary::learn(&texts, 0).tokens()[5..],
            ["##a", "##b", "a"]
        );
        assert_eq!(Vocabulary::learn(&texts, 9).tokens()[8..], ["##ab"]);
    }

    #[test]
    fn the_order_of_texts_does_not_matter() {
        let forwards = Vocabulary::learn(&["lung opacity", "lung nodule", "no opacity"], 60);
        let backwards = Vocabulary::learn(&["no opacity", "lung nodule", "lung opacity"], 60);
        assert_eq!(forwards, backwards);
    }

    #[test]
    fn merging_one_pair_twice_in_a_word_leaves_no_half() {
        let mut learner = Learner::new(&BTreeMap::from([("aaaa".to_owned(), 2)]));
        let pair = learner.most_frequent_pair().unwrap();
        assert_eq!(
            (
                learner.pieces[pair.0].as_str(),
                learner.pieces[pair.1].as_str()
            ),
            ("##a", "##a")
        );
        learner.merge(pair);
        let pieces: Vec<_> = learner.words[0]
            .0
            .iter()
            .map(|&id| learner.pieces[id].as_str())
            .collect();
        assert_eq!(pieces, ["a", "##aa", "##a"]);
    }

    #[test]
    fn what_is_no_vocabulary_is_refused_with_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let cases: [(&str, &[u8], &str); 4] = [
            ("vocab.txt", b"[UNK]\n[CLS]\nlung\n", "[SEP]"),
            ("vocab.txt", b"\xff\xfe\n", "UTF-8"),
            (
                "tokenizer.json",
                br#"{"model":{"type":"BPE","vocab":{}}}"#,
                "BPE",
            ),
            (
                "tokenizer.json",
                br#"{"model":{"type":"WordPiece","vocab":{"a":7}}}"#,
                "7",
            ),
        ];
        for (name, content, part) in cases {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            let message = Vocabulary::read(&path, true).unwrap_err().to_string();
            assert!(
                message.contains(name) && message.contains(part),
                "{message}"
            );
        }
    }

    #[test]
    fn a_token_that_is_there_twice_has_the_later_id() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vocab.txt");
        std::fs::write(&path, "[UNK]\n[CLS]\n[SEP]\nlung\nlung\n").unwrap();
        let vocabulary = Vocabulary::read(&path, true).unwrap();
        assert_eq!(
            (vocabulary.id("lung"), vocabulary.tokens().len()),
            (Some(4), 5)
        );
    }

    #[test]
    fn a_tokenizer_json_says_whether_it_lower_cases() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        // Old files know a WordPiece by its marks only.
        for kind in [
            r#""type":"WordPiece""#,
            r###""continuing_subword_prefix":"##""###,
        ] {
            let json = format!(
                r#"{{"normalizer":{{"type":"BertNormalizer","lowercase":false}},
                "model":{{{kind},"vocab":{{"[CLS]":1,"[UNK]":0,"[SEP]":2,"Lung":3}}}}}}"#
            );
            std::fs::write(&path, json).unwrap();
            let vocabulary = Vocabulary::read(&path, true).unwrap();
            assert!(!vocabulary.lower_case());
            assert_eq!(vocabulary.tokens(), ["[UNK]", "[CLS]", "[SEP]", "Lung"]);
        }
    }
}
