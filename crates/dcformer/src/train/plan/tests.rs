use dcformer_volume::dataset::{Sample, ScanMetadata};

use super::*;

fn pairs(count: usize) -> Pairs {
    let sample = |index: usize| Sample {
        name: index.to_string(),
        patient: index.to_string(),
        path: index.to_string().into(),
        report: Some(format!("Left lung {index}.")),
        labels: Vec::new(),
        metadata: ScanMetadata::default(),
    };
    Pairs {
        samples: (0..count).map(sample).collect(),
        without_report: 0,
        labels: None,
    }
}

fn config(train: &str) -> RunConfig {
    let data = "[data]\nlayout = \"ct-rate\"\nroot = \"data\"\n";
    toml::from_str(&format!("{data}[train]\n{train}")).expect("a valid configuration")
}

/// Pairs and augmentations of all steps, in the order in which a run sees them.
fn all(config: &RunConfig, pairs: &Pairs) -> Vec<(usize, Augmentation)> {
    let plan = Plan::new(config, pairs.samples.len()).unwrap();
    let batches = (0..plan.steps).flat_map(|step| plan.batches(config, step, pairs));
    batches
        .flat_map(|batch| batch.indices.into_iter().zip(batch.augmentations))
        .collect()
}

#[test]
fn every_volume_is_changed_anew_and_alike_however_it_is_batched() {
    let pairs = pairs(16);
    let changed = "epochs = 3\nmirror_left_right = 0.5\nintensity_scale = 0.1\nnoise = 0.1\n";
    let at_once = all(&config(&format!("{changed}batch = 8")), &pairs);
    assert_eq!(at_once.len(), 3 * 16);
    for batches in ["batch = 4\naccumulate = 2", "batch = 8\nmicro_batch = 3"] {
        assert_eq!(
            all(&config(&format!("{changed}{batches}")), &pairs),
            at_once
        );
    }
    for (index, (_, augmentation)) in at_once.iter().enumerate() {
        let before = at_once[..index].iter();
        assert!(before.into_iter().all(|(_, other)| other != augmentation));
    }
}

fn texts(batch: &Batch) -> &[String] {
    match &batch.truth {
        Truth::Texts(texts) => texts,
        Truth::Labels(_) => panic!("these samples have reports"),
    }
}

#[test]
fn a_mirrored_volume_has_a_mirrored_report() {
    let pairs = pairs(8);
    let config = config("batch = 4\nmirror_left_right = 0.5\ntexts_per_volume = 2");
    let plan = Plan::new(&config, 8).unwrap();
    let mut mirrored = 0;
    for batch in (0..10).flat_map(|step| plan.batches(&config, step, &pairs)) {
        // The first texts of all volumes, then their second ones.
        let volumes = batch.indices.iter().zip(&batch.augmentations);
        for (text, (index, augmentation)) in texts(&batch).iter().zip(volumes.cycle()) {
            let side = if augmentation.mirrored {
                "Right"
            } else {
                "Left"
            };
            assert_eq!(*text, format!("{side} lung {index}."));
            mirrored += usize::from(augmentation.mirrored);
        }
    }
    assert!((10..70).contains(&mirrored), "{mirrored} of 80");
    // Nothing is mirrored that a loss is measured on.
    let mut random = Random::new(1, "texts", 0);
    let held_out = Batch::unchanged(&pairs, &config.train, 0..8, &mut random);
    assert!(texts(&held_out).iter().all(|text| text.starts_with("Left")));
}
