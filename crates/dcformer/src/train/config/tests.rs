use super::*;

const MINIMAL: &str = "[data]\nlayout = \"ct-rate\"\nroot = \"data\"\n";

#[test]
fn a_minimal_configuration_is_the_authors_recipe() {
    let config: RunConfig = toml::from_str(MINIMAL).expect("a valid configuration");
    assert_eq!(config.train.epochs, 15);
    assert_eq!(config.train.peak_learning_rate(), 1e-5 * 8.0 / 256.0);
    assert_eq!(config.train.optimizer.betas, [0.9, 0.95]);
    assert_eq!(config.preprocess, Preprocess::dcformer());
    config.check().expect("the defaults are valid");
}

#[test]
fn what_is_written_is_read_back() {
    let config: RunConfig = toml::from_str(MINIMAL).expect("a valid configuration");
    assert_eq!(
        toml::from_str::<RunConfig>(&config.to_toml()).expect("it reads its own files"),
        config
    );
}

#[test]
fn what_is_left_to_the_network_is_written_out() {
    let resolved = |model: &str| {
        let text = format!("{MINIMAL}[model]\n{model}\n");
        let config: RunConfig = toml::from_str(&text).expect("a valid configuration");
        config.resolved().expect("it can be carried out").model
    };
    assert_eq!(resolved("").reduction, Some(Reduction::Channel));
    let ctvit = "encoder = \"ctvit\"\nvariant = \"paper\"";
    assert_eq!(resolved(ctvit).reduction, Some(Reduction::Depth));
    let stated = format!("{ctvit}\nreduction = \"channel\"");
    assert_eq!(resolved(&stated).reduction, Some(Reduction::Channel));
    // The mean over depth of 16 x 16 patches.
    let volume = Preprocess::dcformer().shape;
    let clip = resolved(ctvit).clip(BertConfig::tiny(10), volume);
    let projection = clip.expect("it can be built").image.projection;
    assert_eq!(projection.map(|sizes| sizes.inputs), Some(16 * 16 * 512));
}

#[test]
fn options_change_the_networks_own_configuration() {
    let encoder = |model: &str| {
        let text = format!("{MINIMAL}[model]\n{model}\n");
        let config: RunConfig = toml::from_str(&text).expect("it parses");
        config.model.encoder()
    };
    let vit = "encoder = \"vit\"\nvariant = \"tiny\"";
    let sane = encoder(&format!("{vit}\noptions = {{ hidden = 2048 }}")).expect("a network");
    let params = sane.cost(Preprocess::dcformer().shape).total().params;
    assert_eq!(params, 26_339_872 + 8 * (2048 - 4) * (2 * 512 + 1));
    let wrong = format!("{vit}\noptions = {{ blocks = 3 }}");
    let error = encoder(&wrong).expect_err("it has no blocks");
    assert!(error.to_string().contains("vit"), "{error}");
    // Settings of other networks are no matter of this one.
    let shared = format!("{vit}\nlayer_scale = 0.5\nstem_activation = \"gelu\"");
    let plain = encoder(vit).expect("a network");
    assert_eq!(encoder(&shared).expect("a network"), plain);
}

#[test]
fn a_mistyped_key_is_an_error_that_lists_the_valid_ones() {
    let error = toml::from_str::<RunConfig>(&format!("{MINIMAL}[train]\nepoch = 3\n"))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("`epoch`") && error.contains("`epochs`"),
        "{error}"
    );
}

#[test]
fn values_that_cannot_be_carried_out_are_named() {
    for (line, field) in [
        ("[train]\nbatch = 1", "train.batch"),
        ("[train]\nepochs = 0", "train.epochs"),
        ("[train]\naccumulate = 0", "train.accumulate"),
        ("[train]\nmicro_batch = 0", "train.micro_batch"),
        ("[train]\nbatch_norm = \"frozen\"", "train.batch_norm"),
        (
            "[train]\nmirror_left_right = 1.5",
            "train.mirror_left_right",
        ),
        (
            "[train]\nmirror_left_right = 0.5\n[preprocess]\norientation = \"keep\"",
            "train.mirror_left_right",
        ),
        ("[train]\nintensity_scale = 1.0", "train.intensity_scale"),
        ("[train]\nintensity_offset = nan", "train.intensity_offset"),
        ("[train]\nnoise = -0.1", "train.noise"),
        (
            "[train.optimizer]\nlearning_rate = -1.0",
            "train.optimizer.learning_rate",
        ),
        (
            "[train.optimizer]\nbetas = [0.9, 1.0]",
            "train.optimizer.betas",
        ),
        ("[model]\nencoder = \"resnet\"", "model.encoder"),
        ("[model]\nvariant = \"huge\"", "huge"),
    ] {
        let config: RunConfig = toml::from_str(&format!("{MINIMAL}{line}\n")).expect("it parses");
        let error = config.check().expect_err(line).to_string();
        assert!(error.contains(field), "{line}: {error}");
    }
}
