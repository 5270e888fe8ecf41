//! Latents of a data set, what is found in them, and how well.

use std::path::{Path, PathBuf};

use dcformer::latents::{Entry, LatentFile, LatentWriter, Provenance};
use dcformer_volume::preprocess::Preprocess;
use serde_json::Value;

use super::trained::Trained;
use super::{arguments, dcformer, run, small_model, succeed, tensor, text};

impl Trained {
    fn scan(&self, split: &str, patient: usize) -> PathBuf {
        let name = format!("{split}_{patient}");
        self.phantoms
            .join(format!("dataset/{split}/{name}/{name}_a/{name}_a_1.nii.gz"))
    }

    /// Embeds a data set into a file.
    fn embed(&self, data: &Path, name: &str, more: &[&str]) -> (PathBuf, super::Ran) {
        let out = self.path(name);
        let embed = arguments![
            "embed",
            "--model",
            &self.model,
            "--data",
            data,
            "--out",
            &out,
            "--json",
        ];
        let embed = embed.into_iter().chain(more.iter().map(Into::into));
        (out, run(embed))
    }

    fn search(&self, latents: &Path, more: &[&str]) -> super::Ran {
        let search = arguments!["search", "--model", &self.model, latents, "--json"];
        run(search.into_iter().chain(more.iter().map(Into::into)))
    }
}

/// All rows of a file.
fn entries(file: &LatentFile) -> Vec<Entry> {
    let rows: Vec<usize> = (0..file.rows()).collect();
    file.read_entries(&rows).expect("it can be read")
}

#[test]
fn a_data_set_becomes_a_row_for_each_volume() {
    let trained = Trained::new(8);
    // Two scans that are none.
    std::fs::write(trained.scan("train", 3), "no scan").expect("it can be written");
    let scan = std::fs::read(trained.scan("valid", 2)).expect("a phantom");
    std::fs::write(trained.scan("valid", 2), &scan[..scan.len() / 2]).expect("it can be written");

    let (out, ran) = trained.embed(&trained.phantoms, "all.parquet", &["--threads", "1"]);
    let ran = ran.succeeded();
    let counted = serde_json::json!({"damaged file": 1, "not a scan": 1});
    assert_eq!(
        ran.json(),
        serde_json::json!({"embedded": 18, "failed": counted})
    );
    for name in [
        "left out: train_3_a_1.nii.gz: ",
        "left out: valid_2_a_1.nii.gz: ",
    ] {
        assert!(ran.stderr.contains(name), "{}", ran.stderr);
    }
    let file = LatentFile::open(&out).expect("a file of latents");
    let rows = entries(&file);
    let first = &rows[0];
    assert_eq!(
        (
            &*first.volume,
            &*first.patient,
            &*first.study,
            first.split.as_deref()
        ),
        ("train_1_a_1.nii.gz", "train_1", "train_1_a", Some("train"))
    );
    assert_eq!(rows[17].split.as_deref(), Some("validation"));
    assert_eq!(file.labels().len(), 18);
    let reports = trained
        .phantoms
        .join("radiology_text_reports/train_reports.csv");
    let reports = std::fs::read_to_string(reports).expect("a table");
    let report = first.report.as_deref().expect("phantoms have reports");
    let sentence = report.split('.').next().expect("a sentence");
    assert!(reports.contains(sentence), "{report}");
    assert!(
        rows.iter()
            .all(|row| row.labels.iter().all(Option::is_some))
    );

    // Each row is what the scan alone gives.
    let single = trained.path("single.safetensors");
    let scan = trained.scan("valid", 5);
    run(arguments![
        "embed",
        "--model",
        &trained.model,
        &scan,
        "--out",
        &single
    ])
    .succeeded();
    let single = tensor(&single, "image_latents").values;
    let latents = file.read_latents().expect("latents");
    let row = rows
        .iter()
        .position(|row| row.volume == "valid_5_a_1.nii.gz");
    let row = row.expect("it has a row");
    assert_eq!(latents[row * 512..][..512], single);

    // On other numbers of threads, and a part alone.
    let (again, ran) = trained.embed(&trained.phantoms, "again.parquet", &["--threads", "3"]);
    ran.succeeded();
    assert!(std::fs::read(&out).expect("a file") == std::fs::read(again).expect("a file"));
    let (part, ran) = trained.embed(
        &trained.phantoms,
        "part.parquet",
        &["--split", "validation"],
    );
    assert_eq!(ran.succeeded().json()["embedded"], 11);
    let part = LatentFile::open(&part).expect("a file of latents");
    assert_eq!(entries(&part), rows[7..]);
    assert_eq!(part.read_latents().expect("latents"), latents[7 * 512..]);
}

#[test]
fn a_cache_is_embedded_like_its_volumes() {
    let trained = Trained::new(8);
    let cache = trained.path("cache");
    succeed([
        "prepare",
        text(&trained.phantoms),
        "--out",
        text(&cache),
        "--like",
        text(&trained.model),
    ]);
    let (out, ran) = trained.embed(&cache, "latents.parquet", &[]);
    assert_eq!(ran.succeeded().json()["embedded"], 20);
    let file = LatentFile::open(&out).expect("a file of latents");
    let all = trained.path("all.safetensors");
    run(arguments![
        "embed",
        "--model",
        &trained.model,
        &cache,
        "--out",
        &all
    ])
    .succeeded();
    assert_eq!(
        file.read_latents().expect("latents"),
        tensor(&all, "image_latents").values
    );
    let names: Vec<String> = entries(&file).into_iter().map(|row| row.volume).collect();
    assert_eq!(
        (&*names[0], &*names[19]),
        ("train_1_a_1.nii.gz", "valid_9_a_1.nii.gz")
    );

    // A table of scans has no splits, and empty cells where nothing is known.
    let table = trained.path("list.csv");
    let scans = ["valid", "train"].map(|split| trained.scan(split, 1));
    let [one, other] = scans.each_ref().map(|path| path.display());
    let rows = format!("volume,patient,report,Effusion\n{one},p,Clear.,1\n{other},q,,\n");
    std::fs::write(&table, rows).expect("it can be written");
    let (out, ran) = trained.embed(&table, "table.parquet", &[]);
    ran.succeeded();
    let rows = entries(&LatentFile::open(&out).expect("a file of latents"));
    let known = |row: &Entry| (row.split.clone(), row.report.clone(), row.labels.clone());
    assert_eq!(
        known(&rows[0]),
        (None, Some("Clear.".into()), vec![Some(true)])
    );
    assert_eq!(known(&rows[1]), (None, None, vec![None]));
    assert_eq!((&*rows[1].patient, &rows[1].study), ("q", &rows[1].volume));
}

/// Names of the studies that were found.
fn studies(found: &Value) -> Vec<&str> {
    let found = found.as_array().expect("a list").iter();
    found
        .map(|hit| hit["study"].as_str().expect("a name"))
        .collect()
}

#[test]
fn what_is_found_is_what_evaluation_counts() {
    let trained = Trained::new(8);
    let (out, ran) = trained.embed(
        &trained.phantoms,
        "valid.parquet",
        &["--split", "validation"],
    );
    ran.succeeded();
    let file = LatentFile::open(&out).expect("a file of latents");
    let rows = entries(&file);
    let evaluate = arguments![
        "evaluate",
        "--model",
        &trained.model,
        "--data",
        &trained.phantoms,
        "--retrieval",
        "--json",
        "--report",
        trained.path("report.html"),
    ];
    let evaluation = run(evaluate).succeeded().json();
    let retrieval = &evaluation["retrieval"];
    assert_eq!(
        (&retrieval["pairs"], &retrieval["patients"]),
        (&12.into(), &12.into())
    );
    let page = std::fs::read_to_string(trained.path("report.html")).expect("a report");
    assert!(page.contains("A volume by its report"));

    // Where each report finds its own study.
    let mut ranks = Vec::new();
    for row in &rows {
        let report = row.report.as_deref().expect("a report");
        let found = trained.search(&out, &["--text", report, "--top", "12"]);
        let found = found.succeeded().json();
        let found = studies(&found);
        assert_eq!(found.len(), 12);
        ranks.push(
            found
                .iter()
                .position(|study| *study == row.study)
                .expect("it is there"),
        );
    }
    for recall in retrieval["text_to_volume"].as_array().expect("a list") {
        let k = recall["k"].as_u64().expect("a number") as usize;
        let found = ranks.iter().filter(|rank| **rank < k).count();
        assert_eq!(recall["value"], found as f64 / 12.0, "{ranks:?}");
        assert!(recall["interval"]["low"].is_number());
    }

    // What each scan finds beside itself, and how far the labels agree.
    let mut agreement = 0.0;
    for (index, row) in rows.iter().enumerate() {
        let scan = trained.scan(
            "valid",
            row.patient["valid_".len()..].parse().expect("a number"),
        );
        let found = trained.search(&out, &["--like", text(&scan), "--top", "12"]);
        let found = found.succeeded().json();
        assert_eq!(found[0]["volume"], row.volume);
        assert!((found[0]["similarity"].as_f64().expect("a number") - 1.0).abs() < 1e-5);
        let present = |hit: &Value| {
            let labels = hit["labels"].as_object().expect("labels");
            let present = labels.iter().filter(|(_, label)| **label == true);
            present
                .map(|(name, _)| name.clone())
                .collect::<std::collections::BTreeSet<_>>()
        };
        let own = present(&found[0]);
        let others = &found.as_array().expect("a list")[1..];
        let other = others.iter().map(present).find(|labels| !labels.is_empty());
        let other = other.expect("someone has an abnormality");
        agreement += own.intersection(&other).count() as f64 / own.union(&other).count() as f64;
        assert!(index < 12);
    }
    let at_1 = &retrieval["volume_to_volume"][0];
    let value = at_1["value"].as_f64().expect("a number");
    assert_eq!(at_1["k"], 1);
    assert!(
        (value - agreement / 12.0).abs() < 1e-12,
        "{value} {agreement}"
    );

    // A volume that may find itself agrees with itself, unless it has nothing.
    let all = arguments![
        "evaluate",
        "--model",
        &trained.model,
        "--data",
        &trained.phantoms,
        "--retrieval",
        "--json",
        "--candidates",
        "all",
    ];
    let all = run(all).succeeded().json();
    assert!(all["retrieval"]["volume_to_volume"][0]["value"].as_f64() > Some(value));
    assert_eq!(
        all["retrieval"]["text_to_volume"],
        retrieval["text_to_volume"]
    );
    // Without retrieval, the other numbers are the same.
    let plain = arguments![
        "evaluate",
        "--model",
        &trained.model,
        "--data",
        &trained.phantoms,
        "--json",
    ];
    let plain = run(plain).succeeded().json();
    assert_eq!(plain["metrics"], evaluation["metrics"]);
    assert!(plain.get("retrieval").is_none());
}

#[test]
fn searching_says_the_same_on_any_number_of_threads_and_in_words() {
    let trained = Trained::new(8);
    let (out, ran) = trained.embed(&trained.phantoms, "latents.parquet", &[]);
    ran.succeeded();
    let query = [
        "--text",
        "There is a pleural effusion. The heart is enlarged.",
        "--top",
        "5",
    ];
    let printed = ["1", "3"].map(|threads| {
        let query = query.iter().copied().chain(["--threads", threads]);
        trained
            .search(&out, &query.collect::<Vec<_>>())
            .succeeded()
            .stdout
    });
    assert_eq!(printed[0], printed[1]);
    let found: Value = serde_json::from_str(&printed[0]).expect("JSON");
    let similarities = found.as_array().expect("a list").iter();
    let similarities: Vec<f64> = similarities
        .map(|hit| hit["similarity"].as_f64().expect("a number"))
        .collect();
    assert_eq!(similarities.len(), 5);
    assert!(similarities.is_sorted_by(|a, b| a >= b));
    let table = arguments!["search", "--model", &trained.model, &out];
    let table = run(table.into_iter().chain(query.map(Into::into)))
        .succeeded()
        .stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with("similarity  study"), "{table}");
    assert_eq!(lines.len(), 6);
    assert!(lines[1].contains(studies(&found)[0]), "{table}");

    // Text and scan exclude each other, and one is needed.
    let search = ["search", "--model", text(&trained.model), text(&out)];
    for wrong in [
        &[][..],
        &["--text", "a", "--like", "b"],
        &["--text", "a", "--top", "0"],
    ] {
        assert_eq!(
            dcformer(search.iter().chain(wrong)).status.code(),
            Some(2),
            "{wrong:?}"
        );
    }
    let nowhere = trained.search(&out, &["--like", "no/such/scan.nii.gz"]);
    nowhere.failed(&["no/such/scan.nii.gz"]);
    // Another model's latents are no latents of this one.
    let other = small_model(trained.folder.path());
    let search = arguments!["search", "--model", &other, &out, "--text", "a"];
    run(search).failed(&["latents.parquet", "SHA-256", "embed the data set again"]);
    // And neither are those of other volumes.
    let config = trained.model.join("config.json");
    let json = std::fs::read_to_string(&config).expect("a configuration");
    let json = json.replace("\"width\": 11.0", "\"width\": 12.0");
    std::fs::write(&config, json).expect("it can be written");
    let scan = trained.scan("valid", 1);
    let search = trained.search(&out, &["--like", text(&scan)]);
    search.failed(&["latents.parquet", "preprocessed otherwise"]);
}

#[test]
fn files_that_are_no_latents_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = small_model(folder.path());
    let path = folder.path().join("latents.parquet");
    let refused = |parts: &[&str]| {
        let ran = run(arguments![
            "search", "--model", &model, &path, "--text", "effusion"
        ]);
        let ran = ran.failed(&[&["latents.parquet"], parts].concat());
        assert_eq!(ran.stdout, "");
    };
    refused(&["cannot read"]);
    std::fs::write(&path, "volume,report\nscan.nii.gz,Clear.\n").expect("it can be written");
    refused(&["not a readable Parquet file", "dcformer embed --data"]);

    let write = |width: usize, latent: &[f32]| {
        let provenance = Provenance::new(&model, width, &Preprocess::dcformer());
        let entry = Entry {
            volume: "v".to_owned(),
            patient: "p".to_owned(),
            study: "s".to_owned(),
            split: None,
            report: None,
            labels: vec![],
        };
        LatentWriter::create(&path, &provenance.expect("a model"), &[], |writer| {
            writer.push(entry, latent).expect("it can be written");
            Ok(())
        })
        .expect("it can be written");
    };
    let mut latent = vec![0.0; 512];
    latent[7] = 1.0;
    write(512, &latent);
    let search = arguments![
        "search", "--model", &model, &path, "--text", "effusion", "--json"
    ];
    assert_eq!(studies(&run(search).succeeded().json()), ["s"]);
    let bytes = std::fs::read(&path).expect("a file");
    std::fs::write(&path, &bytes[..bytes.len() / 2]).expect("it can be written");
    refused(&["not a readable Parquet file"]);
    write(3, &[0.0, 1.0, 0.0]);
    refused(&["its latents have 3 numbers, the model's 512"]);
    latent[9] = f32::NAN;
    write(512, &latent);
    refused(&["the latent of row 0", "damaged"]);
}

#[test]
fn embedding_what_cannot_be_embedded_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = small_model(folder.path());
    let (table, out) = (
        folder.path().join("list.csv"),
        folder.path().join("out.parquet"),
    );
    let embed = |more: &[&str]| {
        let embed = arguments!["embed", "--model", &model, "--data", &table, "--out", &out];
        run(embed.into_iter().chain(more.iter().map(Into::into)))
    };
    std::fs::write(&table, "volume\nmissing.nii.gz\n").expect("it can be written");
    embed(&[]).failed(&["row without a file", "no volumes to embed"]);
    std::fs::write(folder.path().join("bad.nii.gz"), "no scan").expect("it can be written");
    std::fs::write(&table, "volume\nbad.nii.gz\n").expect("it can be written");
    embed(&[]).failed(&[
        "left out: bad.nii.gz: ",
        "not one of 1 volumes",
        "nothing is written",
    ]);
    assert!(!out.exists());
    assert_eq!(embed(&["--features"]).status, Some(2));
    assert_eq!(embed(&["scan.nii.gz"]).status, Some(2));
    std::fs::write(&table, "volume,latent\nbad.nii.gz,1\n").expect("it can be written");
    embed(&[]).failed(&["`latent`"]);
    let left = std::fs::read_dir(folder.path()).expect("a folder").count();
    assert_eq!(left, 3, "the model, the table and the scan");
}
