//! What networks cost: by their parts, for any volume, and beside the paper.

use serde_json::Value;

use crate::{repository, run, succeed, text};

const PAPER_SHAPE: &str = "256,512,512";

fn rows(arguments: &[&str]) -> Vec<Value> {
    let ran = run(["complexity", "--json"].iter().chain(arguments)).succeeded();
    ran.json().as_array().expect("rows").clone()
}

/// The sum of a field over the rows of a breakdown.
fn sum(shares: &Value, field: &str) -> u64 {
    let shares = shares.as_array().expect("a breakdown").iter();
    shares
        .map(|share| share[field].as_u64().expect("a count"))
        .sum()
}

#[test]
fn parts_in_json_are_the_whole() {
    for shape in [PAPER_SHAPE, "64,96,160"] {
        let rows = rows(&["--by", "layer", "--depth", "2", "--shape", shape]);
        assert!(rows.len() >= 20, "{}", rows.len());
        for row in rows {
            for parts in ["by_kind", "layers"] {
                let what = format!("{parts} of {} {}", row["model"], row["variant"]);
                for field in ["params", "macs"] {
                    assert_eq!(Some(sum(&row[parts], field)), row[field].as_u64(), "{what}");
                }
                let kept = row["activation_memory"]["training_bytes"].as_u64();
                assert_eq!(Some(sum(&row[parts], "training_bytes")), kept, "{what}");
            }
            let printed = shape == PAPER_SHAPE && is_in_the_paper(&row);
            assert_eq!(row["paper"].is_object(), printed, "{}", row["variant"]);
        }
    }
}

fn is_in_the_paper(row: &Value) -> bool {
    let ours = match row["model"].as_str().expect("a name") {
        "dcformer" => &["small", "base", "large"][..],
        "inceptionnext" => &["nano", "naive", "tiny"],
        _ => &[],
    };
    !ours.contains(&row["variant"].as_str().expect("a name"))
}

#[test]
fn the_tables_show_what_was_asked_for() {
    let only = ["--model-name", "dcformer", "--variant", "nano"];
    let table = |more: &[&str]| succeed(["complexity"].iter().chain(&only).chain(more));
    let words =
        |line: &str| -> Vec<String> { line.split_whitespace().map(str::to_owned).collect() };
    let last = |table: &str| words(table.lines().last().expect("rows"));
    // 4 bytes for each of 2.5 times as many numbers as the volume has: 640 MB.
    assert_eq!(
        last(&table(&[])),
        [
            "dcformer", "nano", "789216", "920288", "34.2053", "640.0", "2510.8"
        ]
    );
    let kinds = last(&table(&["--by", "kind"]));
    assert_eq!(
        kinds,
        [
            "dcformer", "nano", "29.6957", "0.2066", "2.2062", "-", "2.0968", "34.2053"
        ]
    );
    let layers = table(&["--by", "layer"]);
    assert_eq!(layers.lines().count(), 1 + 5 + 1, "{layers}");
    assert_eq!(
        words(layers.lines().nth(1).unwrap())[2..5],
        ["stem", "29472", "31.7089"]
    );
    assert_eq!(
        last(&layers)[2..6],
        ["together", "789216", "34.2053", "100.0"]
    );
    let full = table(&["--by", "layer", "--depth", "full"]);
    assert!(
        full.contains("stages.3.blocks.0.mixer.depth.norm "),
        "{full}"
    );
    run(["complexity", "--by", "kind", "--depth", "2"]).failed(&["--depth goes with --by layer"]);
    let wrong = run(["complexity", "--by", "layer", "--depth", "0"]);
    assert_eq!(wrong.status, Some(2), "{}", wrong.stderr);
}

#[test]
fn the_paper_is_set_beside_with_reasons() {
    let table = succeed(["complexity", "--paper"]);
    let misprint = table
        .lines()
        .find(|line| line.starts_with("convnext") && line.contains(" tiny "));
    let cells: Vec<&str> = misprint.expect("a row").split_whitespace().collect();
    assert_eq!(cells[5..], ["%", "159.3130", "156.31", "+1.92", "%", "3"]);
    assert!(
        table.contains("\n3. convnext tiny: ") && table.contains("a misprint"),
        "{table}"
    );
    assert!(
        table.contains("dcformer       large           186.1740       -"),
        "{table}"
    );
}

/// docs/cost holds what `dcformer complexity --figures docs/cost` writes.
#[test]
fn the_figures_in_the_documents_are_those_that_the_program_draws() {
    let folder = tempfile::tempdir().expect("a folder");
    let place = folder.path().join("made/anew");
    let printed = succeed(["complexity", "--figures", text(&place)]);
    let mut names: Vec<String> = std::fs::read_dir(&place)
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("a file")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    assert_eq!(
        names.join(" "),
        "figure1.json figure1.md figure1.svg figure2.json figure2.md figure2.svg \
         table1.json table1.md table1.svg table2.json table2.md"
    );
    assert_eq!(printed.lines().count(), names.len());
    for name in names {
        let read = |path| std::fs::read_to_string(path).expect("text");
        let (made, kept) = (
            read(place.join(&name)),
            read(repository("docs/cost").join(&name)),
        );
        assert!(
            made == kept,
            "docs/cost/{name} is old: dcformer complexity --figures docs/cost"
        );
    }
}

#[test]
fn figures_into_a_place_that_is_no_folder_fail() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "kept").expect("it can be written");
    run(["complexity", "--figures", text(&file)]).failed(&["cannot write", "file"]);
    assert_eq!(std::fs::read_to_string(&file).expect("text"), "kept");
}
