use super::*;
use crate::answers::Answers;
use crate::evaluate::Bootstrap;
use crate::evaluate::retrieval::{Candidates, Recall, RetrievalAnswers};
use crate::models::presets;
use crate::train::DataConfig;

fn name(text: &str) -> EncoderName {
    text.parse().expect("a network")
}

/// A run on data that no test reads.
fn config() -> RunConfig {
    RunConfig {
        seed: 3,
        data: DataConfig::CtRate {
            root: "nowhere".into(),
            exclude: Vec::new(),
        },
        model: Default::default(),
        preprocess: Default::default(),
        train: Default::default(),
        prompts: Default::default(),
        finetune: None,
    }
}

const VOLUME: Shape3 = Shape3 {
    depth: 32,
    height: 64,
    width: 64,
};

/// Twelve patients with a volume each; the encoder errs on the first `wrong` of them.
pub(crate) fn entry(encoder: &str, wrong: usize) -> Entry {
    let encoder = name(encoder);
    let mut config = config();
    config.model = config
        .model
        .with_encoder(&encoder.preset().unwrap())
        .unwrap();
    let labels: Vec<bool> = (0..12).map(|volume| volume % 2 == 0).collect();
    let score = |(volume, present): (usize, &bool)| {
        let says = *present != (volume < wrong);
        vec![if says { 0.9 } else { 0.1 }]
    };
    let patients: Vec<String> = (0..12).map(|volume| format!("p{volume}")).collect();
    Entry {
        request: Request {
            encoder,
            config,
            budget: Budget::Epochs(2),
            training_data: 1,
            validation_data: 2,
        },
        trained: Trained {
            steps: 4,
            pairs: 32,
            loss: 1.5,
            seconds: 8.0,
            pairs_per_s: 4.0,
            peak_rss_mb: Some(700.0),
            threads: 2,
            simd: "avx2".into(),
        },
        measured: Measured {
            answers: Answers {
                volumes: (0..12).map(|volume| format!("v{volume}")).collect(),
                patients: patients.clone(),
                names: vec!["Effusion".into()],
                scores: labels.iter().enumerate().map(score).collect(),
                labels: labels.iter().map(|label| vec![Some(*label)]).collect(),
                retrieval: Some(RetrievalAnswers {
                    patients,
                    text_to_volume: (0..12)
                        .map(|query| if query < wrong { 11 } else { 0 })
                        .collect(),
                    volume_to_text: (0..12).collect(),
                    volume_to_volume: vec![Some(vec![0.5, 0.4, 0.3, 0.2]); 12],
                    candidates: Candidates::OtherPatients,
                }),
            },
            inference: Inference {
                seconds: 0.0125,
                runs: 15,
                peak_rss_mb: None,
                threads: 2,
                simd: "avx2".into(),
            },
        },
    }
}

pub(crate) fn comparison(entries: Vec<Entry>) -> Comparison {
    let failure = Failure {
        encoder: name("ctvit:paper"),
        reason: "out of <memory>".into(),
    };
    let bootstrap = Bootstrap {
        resamples: 200,
        seed: 1,
    };
    let setting = (3, VOLUME, Budget::Epochs(2));
    Comparison::new(entries, vec![failure], setting, bootstrap).unwrap()
}

#[test]
fn names_are_networks_and_sizes() {
    assert_eq!(name("dcformer:naive").to_string(), "dcformer naive");
    assert_eq!(name("vit").folder(), "vit-naive");
    let error = "resnet:tiny"
        .parse::<EncoderName>()
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`resnet`") && error.contains("convnext"),
        "{error}"
    );
    let error = "vit:nano".parse::<EncoderName>().unwrap_err().to_string();
    assert!(
        error.contains("`nano`") && error.contains("naive, tiny"),
        "{error}"
    );
}

#[test]
fn a_volume_that_all_take_is_the_next_larger_one() {
    let encoders = |names: &[&str]| -> Vec<ImageEncoderConfig> {
        names
            .iter()
            .map(|text| name(text).preset().unwrap().config)
            .collect()
    };
    let volume = |depth, height, width| Shape3 {
        depth,
        height,
        width,
    };
    let found = common_volume(
        &encoders(&["dcformer:nano", "vit:naive"]),
        volume(32, 40, 48),
    );
    assert_eq!(found, Some(volume(32, 64, 64)));
    let found = common_volume(
        &encoders(&["dcformer:nano", "convnext:nano"]),
        volume(32, 40, 48),
    );
    assert_eq!(found, Some(volume(32, 40, 48)));
    // Patches of 10 x 20 x 20 and of 32 x 32 x 32 voxels.
    let found = common_volume(
        &encoders(&["ctvit:ct-clip", "vit:naive"]),
        volume(100, 300, 300),
    );
    assert_eq!(found, Some(volume(160, 320, 320)));
}

#[test]
fn every_preset_but_the_one_of_ct_clip_takes_the_volume_of_the_phantoms() {
    let refused: Vec<String> = presets()
        .into_iter()
        .filter(|preset| preset.config.grid(VOLUME).is_err())
        .map(|preset| format!("{} {}", preset.network, preset.variant))
        .collect();
    assert_eq!(refused, ["ctvit ct-clip"]);
}

#[test]
fn options_stay_with_their_network_and_codes_fit_the_features() {
    let mut config = config();
    config.model.options.insert("patch".into(), 1.into());
    config.model.quantizer = Some(crate::models::VectorQuantizerConfig {
        codes: 8,
        channels: 256,
    });
    let vit = config
        .model
        .with_encoder(&name("vit:tiny").preset().unwrap())
        .unwrap();
    assert!(vit.options.is_empty());
    assert_eq!(vit.quantizer.unwrap().channels, 512);
    // Its own option does not exist, and that is said.
    let own = config
        .model
        .with_encoder(&name("dcformer:tiny").preset().unwrap());
    assert!(own.unwrap_err().to_string().contains("model.options"));
}

#[test]
fn steps_add_up_to_what_training_took() {
    let step = |step, pairs_per_s, loss| StepReport {
        step,
        steps: 20,
        epoch: 0,
        loss,
        learning_rate: 1e-3,
        gradient_norm: 1.0,
        pairs_per_s,
        validation_loss: None,
    };
    // The first step is slow; the loss of the last tenth is that of the last two.
    let steps: Vec<StepReport> = (1..=20)
        .map(|at| step(at, if at == 1 { 1.0 } else { 4.0 }, f64::from(at as u32)))
        .collect();
    let trained = Trained::of_steps(&steps, 8, None).unwrap();
    assert_eq!((trained.steps, trained.pairs), (20, 160));
    assert_eq!((trained.loss, trained.pairs_per_s), (19.5, 4.0));
    assert_eq!(trained.seconds, 8.0 + 19.0 * 2.0);
    assert_eq!(Trained::of_steps(&[], 8, None), None);
}

#[test]
fn encoders_are_ranked_and_their_differences_signed() {
    let comparison = comparison(vec![entry("vit:naive", 6), entry("dcformer:nano", 0)]);
    let ranked: Vec<String> = comparison
        .ranked()
        .iter()
        .map(|compared| compared.encoder.to_string())
        .collect();
    assert_eq!(ranked, ["dcformer nano", "vit naive"]);
    // Wrong about 3 of 6 positives and 3 of 6 negatives: half of the pairs tie, a quarter are right.
    let auroc = |index: usize| comparison.encoders[index].detection.metrics.auroc_mean;
    assert_eq!((auroc(0), auroc(1)), (Some(0.5), Some(1.0)));
    let [pair] = &comparison.differences[..] else {
        panic!("two encoders are one pair")
    };
    assert_eq!(pair.auroc_mean.value, Some(-0.5));
    assert!(pair.auroc_mean.is_below());
    let (first, second) = (&pair.first, &pair.second);
    let reversed = comparison.auroc_difference(second, first).unwrap();
    assert_eq!(reversed, pair.auroc_mean.reversed());
    assert_eq!(comparison.auroc_difference(first, first), None);
    assert_eq!(pair.text_to_volume_recall_at_10.unwrap().value, Some(-0.5));
    assert_eq!(pair.volume_to_text_recall_at_10.unwrap().value, Some(0.0));
}

#[test]
fn recall_is_stated_where_something_can_be_missed() {
    let comparison = comparison(vec![entry("dcformer:nano", 3)]);
    let retrieval = comparison.encoders[0].retrieval.as_ref().unwrap();
    let shown = |recalls: &[Recall]| -> Vec<(usize, Option<f64>)> {
        recalls
            .iter()
            .map(|recall| (recall.k, recall.value))
            .collect()
    };
    // Of 12 pairs; recall at 50 and 100 would be 1 for anybody.
    assert_eq!(
        shown(&retrieval.text_to_volume),
        [(1, Some(0.75)), (5, Some(0.75)), (10, Some(0.75))]
    );
    assert_eq!(
        shown(&retrieval.volume_to_text),
        [
            (1, Some(1.0 / 12.0)),
            (5, Some(5.0 / 12.0)),
            (10, Some(10.0 / 12.0))
        ]
    );
    let agreements: Vec<usize> = retrieval
        .volume_to_volume
        .iter()
        .map(|found| found.k)
        .collect();
    assert_eq!(agreements, [1, 5, 10]);
}

#[test]
fn costs_are_those_of_complexity() {
    let cost = Cost::of(&entry("dcformer:nano", 0).request.config.model, VOLUME).unwrap();
    assert_eq!(
        (cost.params, cost.params_with_projection),
        (789_216, 920_288)
    );
    let paper = cost.gmacs_of_paper_volume.unwrap();
    assert!((paper - 34.2053).abs() < 1e-4, "{paper}");
    // An eighth along each axis, and work in proportion to the voxels, but that half a voxel of the last grid is one.
    let share = cost.gmacs * 512.0 / paper;
    assert!((1.0..1.01).contains(&share), "{share}");
}

#[test]
fn what_was_measured_on_other_volumes_is_not_compared() {
    let mut other = entry("vit:naive", 0);
    other.measured.answers.volumes[3] = "another".into();
    let setting = (3, VOLUME, Budget::Epochs(2));
    let entries = vec![entry("dcformer:nano", 0), other];
    let error = Comparison::new(entries, Vec::new(), setting, Bootstrap::default());
    let error = error.unwrap_err().to_string();
    assert!(
        error.contains("vit naive was measured on other volumes"),
        "{error}"
    );
}

#[test]
fn tables_have_a_row_for_each_encoder_best_first() {
    let comparison = comparison(vec![entry("vit:naive", 6), entry("dcformer:nano", 0)]);
    let csv = comparison.to_csv();
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(rows.len(), 3);
    let cell = |row: usize, heading: &str| {
        let column = rows[0]
            .iter()
            .position(|found| *found == heading)
            .expect(heading);
        rows[row][column]
    };
    assert_eq!(rows[1][..2], ["dcformer", "nano"]);
    assert_eq!((cell(1, "mean AUROC"), cell(2, "mean AUROC")), ("1", "0.5"));
    assert_eq!(
        (cell(1, "parameters (M)"), cell(1, "ms per volume")),
        ("0.789216", "12.5")
    );
    assert_eq!(
        (cell(1, "MB training"), cell(1, "MB encoding")),
        ("700", "")
    );
    assert_eq!(cell(2, "text to volume R@5"), "0.5");

    let markdown = comparison.to_markdown();
    let lines: Vec<&str> = markdown.lines().collect();
    let cells = |line: &str| line.matches('|').count();
    assert!(
        lines[2].starts_with("| dcformer nano | 0.79 | 0.067 | 1.000 | 1.000 |"),
        "{markdown}"
    );
    assert!(
        lines[..4].iter().all(|line| cells(line) == cells(lines[0])),
        "{markdown}"
    );
    assert_eq!(lines[5], "ctvit paper came to no result: out of <memory>");
}

#[test]
fn json_comes_back_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("request.json");
    assert_eq!(read_json::<Request>(&path).unwrap(), None);
    let request = entry("dcformer:nano", 0).request;
    write_json(&path, &request).unwrap();
    assert_eq!(read_json(&path).unwrap(), Some(request));
    std::fs::write(&path, "{").unwrap();
    assert!(
        read_json::<Request>(&path)
            .unwrap_err()
            .to_string()
            .contains("request.json")
    );
}
