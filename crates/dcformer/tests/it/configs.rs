//! The recipes in `configs/`: each can be read, and its first line is the command that runs it.

use std::path::PathBuf;

use dcformer::models::Temperature;
use dcformer::train::{RunConfig, TrainConfig};
use dcformer_volume::preprocess::Preprocess;

/// Files in `configs/`, by name.
fn recipes() -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut recipes: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    recipes.sort();
    recipes
}

fn name(recipe: &std::path::Path) -> &str {
    recipe.file_name().and_then(|name| name.to_str()).unwrap()
}

fn recipe(wanted: &str) -> RunConfig {
    let recipes = recipes();
    let path = recipes
        .iter()
        .find(|path| name(path) == wanted)
        .unwrap_or_else(|| panic!("configs/{wanted} is missing"));
    RunConfig::read(path).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn every_recipe_is_read_and_begins_with_its_command() {
    let recipes = recipes();
    assert!(!recipes.is_empty(), "there are no recipes");
    for path in &recipes {
        RunConfig::read(path).unwrap_or_else(|error| panic!("{error}"));
        let text = std::fs::read_to_string(path).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let command = format!("dcformer train configs/{} --out ", name(path));
        assert!(
            first.starts_with("# dcformer ") && first.contains(&command),
            "the first line of {} is `{first}`, expected a comment with `{command}`",
            path.display()
        );
    }
}

#[test]
fn the_ct_rate_recipes_are_the_authors() {
    for variant in ["nano", "tiny"] {
        let config = recipe(&format!("ct-rate-{variant}.toml"));
        assert_eq!(config.model.variant, variant);
        assert_eq!(config.model.layer_scale, None);
        assert_eq!(config.model.temperature, Temperature::AUTHORS);
        assert_eq!(config.train, TrainConfig::default());
        assert_eq!(config.preprocess, Preprocess::dcformer());
    }
}
