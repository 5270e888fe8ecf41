//! Pairs of volume and report, and the batches of a step.

use std::path::PathBuf;

use dcformer_volume::cache;
use dcformer_volume::ct_rate::{self, Split};
use dcformer_volume::dataset::{DataSet, Sample};
use dcformer_volume::manifest;
use dcformer_volume::preprocess::Preprocess;
use dcformer_volume::scan::ScanOptions;
use half::f16;
use rayon::prelude::*;

use super::augmentation::Augmentation;
use super::config::DataConfig;
use super::labels::LabelTable;
use crate::error::{Error, Result};
use crate::random::Random;
use crate::text::{ReportText, sentences};

impl DataConfig {
    /// The training split.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn training(&self) -> Result<DataSet> {
        self.split(Split::Train)
    }

    /// The validation split; empty if a manifest or a cache has none.
    ///
    /// # Errors
    /// If it cannot be listed.
    pub fn validation(&self) -> Result<DataSet> {
        self.split(Split::Validation)
    }

    fn split(&self, split: Split) -> Result<DataSet> {
        Ok(match self {
            Self::CtRate { root, exclude } => ct_rate::read(
                root,
                split,
                &ct_rate::Options {
                    exclude: exclude.clone(),
                },
            )?,
            Self::Manifest { train, validation } => match (split, validation) {
                (Split::Train, _) => manifest::read(train)?,
                (Split::Validation, Some(path)) => manifest::read(path)?,
                (Split::Validation, None) => DataSet::default(),
            },
            Self::Cache { train, validation } => match (split, validation) {
                (Split::Train, _) => cache::read(train, &[Some(Split::Train), None])?,
                (Split::Validation, Some(path)) => {
                    cache::read(path, &[Some(Split::Validation), None])?
                }
                (Split::Validation, None) => cache::read(train, &[Some(Split::Validation)])?,
            },
        })
    }
}

/// Samples to learn from.
#[derive(Clone, Debug)]
pub struct Pairs {
    /// The samples; each has a report, but in fine-tuning.
    pub samples: Vec<Sample>,
    /// Samples left out because they have none.
    pub without_report: usize,
    /// What fine-tuning learns of the samples in place of reports; they need none then.
    pub(super) labels: Option<LabelTable>,
}

impl Pairs {
    /// The samples of a data set that have a report.
    pub fn of(data: DataSet) -> Self {
        let (samples, without): (Vec<_>, Vec<_>) =
            data.samples.into_iter().partition(Sample::has_report);
        Self {
            samples,
            without_report: without.len(),
            labels: None,
        }
    }

    /// Their reports.
    pub fn reports(&self) -> Vec<&str> {
        self.samples
            .iter()
            .map(|sample| sample.report.as_deref().unwrap_or_default())
            .collect()
    }

    /// A number that changes when the list does.
    pub fn fingerprint(&self) -> u64 {
        let samples = Self::fingerprint_of(&self.samples);
        match &self.labels {
            Some(labels) => fnv(samples, labels.bytes()),
            None => samples,
        }
    }

    /// The same for any samples, of their names and reports.
    pub fn fingerprint_of(samples: &[Sample]) -> u64 {
        /// What FNV-1a starts from.
        const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
        let bytes = samples.iter().flat_map(|sample| {
            let report = sample.report.as_deref().unwrap_or_default();
            sample
                .name
                .bytes()
                .chain([0])
                .chain(report.bytes())
                .chain([0])
        });
        fnv(OFFSET, bytes)
    }
}

/// FNV-1a goes on over bytes: short, and the same on every machine and in every version of the compiler.
fn fnv(hash: u64, bytes: impl Iterator<Item = u8>) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.fold(hash, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    })
}

/// Preprocessed volumes by index, kept in memory as far as they fit.
///
/// Values are half floats (0.3 HU at most under the authors' window), in memory, in a cache and when read again, so that
/// neither the budget nor the cache changes results.
#[derive(Debug)]
pub struct VolumeSource {
    preprocess: Preprocess,
    places: Vec<(PathBuf, dcformer_volume::dataset::ScanMetadata)>,
    kept: Vec<Option<Vec<f16>>>,
}

impl VolumeSource {
    /// Preprocesses the first volumes of the list, as many as fit into `memory_gb`, on all threads. `progress` is told
    /// how many are done; `stop` ends it early.
    ///
    /// # Errors
    /// If a volume cannot be read or preprocessed.
    pub fn load(
        samples: &[Sample],
        preprocess: &Preprocess,
        memory_gb: f64,
        progress: &(dyn Fn(usize, usize) + Sync),
        stop: &std::sync::atomic::AtomicBool,
    ) -> Result<Self> {
        use std::sync::atomic::{AtomicUsize, Ordering};
        let bytes = (preprocess.shape.voxels() * size_of::<f16>()) as f64;
        let room = ((memory_gb * 1e9 / bytes) as usize).min(samples.len());
        let mut source = Self {
            preprocess: preprocess.clone(),
            places: samples
                .iter()
                .map(|sample| (sample.path.clone(), sample.metadata))
                .collect(),
            kept: Vec::new(),
        };
        let done = AtomicUsize::new(0);
        source.kept = (0..room)
            .into_par_iter()
            .map(|index| {
                if stop.load(Ordering::Relaxed) {
                    return Ok(None);
                }
                let values = source.read(index)?;
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, room);
                Ok(Some(values))
            })
            .collect::<Result<_>>()?;
        Ok(source)
    }

    fn read(&self, index: usize) -> Result<Vec<f16>> {
        let (path, metadata) = &self.places[index];
        let options = ScanOptions::default();
        Ok(self.preprocess.run_file_half(path, metadata, &options)?)
    }

    /// Number of volumes.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Volumes one after the other, `[volumes, depth, height, width]`, each changed by its augmentation.
    ///
    /// # Errors
    /// If a volume that is not in memory cannot be read.
    pub fn batch(&self, indices: &[usize], augmentations: &[Augmentation]) -> Result<Vec<f32>> {
        let voxels = self.preprocess.shape.voxels();
        let mut out = vec![self.preprocess.pad_value; indices.len() * voxels];
        out.par_chunks_mut(voxels)
            .zip(indices)
            .zip(augmentations)
            .try_for_each(|((out, &index), augmentation)| {
                let read;
                let values = match self.kept.get(index) {
                    Some(Some(values)) => values,
                    _ => {
                        read = self.read(index)?;
                        &read
                    }
                };
                augmentation.apply(values, out, &self.preprocess);
                Ok::<(), Error>(())
            })?;
        Ok(out)
    }
}

/// The order in which an epoch visits the pairs.
pub(super) fn epoch_order(pairs: usize, seed: u64, epoch: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..pairs).collect();
    Random::new(seed, "order of epoch", epoch).shuffle(&mut order);
    order
}

/// What a step reads of a report: so many texts. Sentences are dealt like cards: none comes again before all others came.
pub(super) fn texts_of_step(
    report: &str,
    how: ReportText,
    texts: usize,
    random: &mut Random,
) -> Vec<String> {
    match how {
        ReportText::Whole => vec![report.to_owned(); texts],
        ReportText::Shuffled => {
            let mut sentences: Vec<&str> = sentences(report).collect();
            let mut shuffled = || {
                random.shuffle(&mut sentences);
                sentences.join(" ")
            };
            (0..texts).map(|_| shuffled()).collect()
        }
        ReportText::Sentences { most } => {
            let mut sentences: Vec<&str> = sentences(report).collect();
            random.shuffle(&mut sentences);
            let mut dealt = sentences.iter().copied().cycle();
            let most = most.clamp(1, sentences.len().max(1));
            (0..texts)
                .map(|_| {
                    let text: Vec<&str> = dealt.by_ref().take(1 + random.below(most)).collect();
                    text.join(" ")
                })
                .collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_reads_some_sentences_and_the_same_again() {
        let report = "One. Two. Three. Four.";
        let texts = |step| {
            let how = ReportText::Sentences { most: 9 };
            texts_of_step(report, how, 2, &mut Random::new(1, "text", step))
        };
        let all: Vec<String> = (0..50).flat_map(texts).collect();
        assert_eq!(all, (0..50).flat_map(texts).collect::<Vec<_>>());
        assert_eq!(all.len(), 100);
        assert!(all.iter().any(|text| text.matches('.').count() == 1));
        assert!(all.iter().any(|text| text.matches('.').count() == 4));
        assert!(
            all.iter()
                .all(|text| sentences(text).all(|sentence| report.contains(sentence)))
        );
    }

    #[test]
    fn a_shuffled_report_says_all_of_it_in_another_order() {
        let report = "One of 7.5 mm. Two.Three";
        let texts = |step| {
            let random = &mut Random::new(1, "text", step);
            texts_of_step(report, ReportText::Shuffled, 2, random)
        };
        let all: Vec<String> = (0..50).flat_map(texts).collect();
        assert_eq!(all, (0..50).flat_map(texts).collect::<Vec<_>>());
        let mut orders = all.clone();
        orders.sort();
        orders.dedup();
        let [one, two, three] = ["One of 7.5 mm.", "Two.", "Three"];
        let mut expected = [
            [one, two, three],
            [one, three, two],
            [two, one, three],
            [two, three, one],
            [three, one, two],
            [three, two, one],
        ]
        .map(|order| order.join(" "));
        expected.sort();
        assert_eq!(orders, expected);
    }

    #[test]
    fn no_sentence_comes_again_before_all_others_came() {
        let how = ReportText::Sentences { most: 1 };
        let report = "One. Two. Three. Four.";
        let mut texts = texts_of_step(report, how, 8, &mut Random::new(1, "text", 0));
        let mut again = texts.split_off(4);
        assert_eq!(texts, again);
        texts.sort();
        again.sort();
        assert_eq!(texts, ["Four.", "One.", "Three.", "Two."]);
        let empty = texts_of_step("", how, 2, &mut Random::new(1, "text", 0));
        assert_eq!(empty, ["", ""]);
    }

    #[test]
    fn every_epoch_visits_every_pair_once_in_its_own_order() {
        let first = epoch_order(100, 7, 0);
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        assert_ne!(first, epoch_order(100, 7, 1));
        assert_eq!(first, epoch_order(100, 7, 0));
    }
}
