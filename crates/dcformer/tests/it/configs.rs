//! The recipes in `configs/` are valid, and say how they are run.

use dcformer::train::RunConfig;

#[test]
fn every_recipe_is_valid_and_names_its_command() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut recipes = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        RunConfig::read(&path).unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let text = std::fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        assert!(
            first.starts_with("# dcformer") && first.contains(&name),
            "{name}: {first}"
        );
        recipes += 1;
    }
    assert!(recipes >= 4, "found {recipes} recipes");
}
