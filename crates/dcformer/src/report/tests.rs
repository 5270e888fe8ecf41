use super::*;
use crate::evaluate::retrieval::{Agreement, Candidates, Recall};
use crate::evaluate::{Bootstrap, Interval, Predictions, Threshold};

const HOSTILE: &str = "<script>alert(\"1\")</script>&'";

fn evaluation() -> Evaluation {
    let labels = [1, 0, 1, 0, 1, 0, 0, 0].map(|label| Some(label == 1));
    let scores = vec![0.9, 0.2, 0.6, 0.4, 0.3, 0.1, 0.7, 0.8];
    let names = vec![HOSTILE.to_owned(), "never".to_owned()];
    let predictions = Predictions::new(names, scores, labels.to_vec()).unwrap();
    let patients = ["a", "b", "c", "d"];
    Evaluation::new(
        &predictions,
        &patients,
        Threshold::RocCorner,
        Bootstrap {
            resamples: 50,
            seed: 3,
        },
    )
    .unwrap()
}

/// Three queries, of which the second is found second.
fn retrieval() -> Retrieval {
    let recall = |value| Recall {
        k: 1,
        value: Some(value),
        interval: Some(Interval {
            low: 0.25,
            high: 1.0,
        }),
    };
    Retrieval {
        pairs: 3,
        patients: 2,
        text_to_volume: vec![recall(2.0 / 3.0)],
        volume_to_text: vec![recall(1.0)],
        volume_to_volume: vec![Agreement {
            k: 1,
            value: 0.125,
            interval: None,
        }],
        candidates: Candidates::All,
    }
}

/// A report that is hostile wherever text comes in.
fn report() -> Report {
    let text = HOSTILE.to_owned();
    let picture = Picture {
        caption: text.clone(),
        width: 2,
        height: 1,
        pixels: vec![0, 255],
        size_mm: [2.0, 1.0],
    };
    let finding = CaseFinding {
        name: text.clone(),
        probability: 0.9,
        said_present: true,
        present: Some(true),
    };
    let case = Case {
        name: text.clone(),
        headline: text.clone(),
        verdict: Verdict::Right,
        pictures: vec![picture],
        findings: vec![finding],
        report: Some(text.clone()),
    };
    let point = |step, loss| LossPoint { step, loss };
    Report {
        title: text.clone(),
        summary: text.clone(),
        command: text.clone(),
        facts: vec![Facts {
            heading: text.clone(),
            rows: vec![(text.clone(), text.clone())],
        }],
        evaluation: Some(evaluation()),
        retrieval: Some(retrieval()),
        training: TrainingCurve {
            train: vec![point(0, 3.0), point(10, f64::NAN), point(20, 1.0)],
            validation: vec![point(20, 1.5)],
        },
        cases: vec![case],
        timings: vec![Timing {
            step: text.clone(),
            elapsed_s: 61.0,
        }],
        configuration: text.clone(),
        limits: vec![text],
    }
}

/// Fails unless every tag that is opened is closed in turn, and every identifier is there once.
fn check_markup(html: &str) {
    const VOID: [&str; 4] = ["!DOCTYPE", "meta", "img", "link"];
    let mut open = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for tag in html.split('<').skip(1) {
        let (tag, _) = tag.split_once('>').expect("every tag ends");
        if let Some(id) = tag.split(" id=\"").nth(1) {
            assert!(
                ids.insert(id.split('"').next().unwrap().to_owned()),
                "{tag} has an id that is taken"
            );
        }
        let name = tag.split([' ', '/']).find(|part| !part.is_empty()).unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "</{name}> closes another tag");
        } else if !VOID.contains(&name) && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert!(open.is_empty(), "never closed: {open:?}");
    for label in html.split("aria-labelledby=\"").skip(1) {
        let names = label.split('"').next().unwrap();
        assert!(
            names.split(' ').all(|id| ids.contains(id)),
            "{names} names nothing"
        );
    }
}

#[test]
fn text_from_data_never_becomes_markup_and_the_page_is_well_formed() {
    let html = report().to_html();
    check_markup(&html);
    assert!(!html.contains("<script") && !html.contains("alert(\"1\")"));
    // Title, heading, summary, command, fact and its heading, tables, charts, case, timing, configuration, limit.
    assert!(
        html.matches("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;")
            .count()
            >= 16
    );
    assert!(!html.contains("NaN") && !html.contains("inf\""));
}

#[test]
fn retrieval_is_shown_beside_a_guess() {
    let html = report().to_html();
    for part in [
        "<h2>Retrieval</h2>",
        "Recall at 1",
        "<td>0.667<small>0.250 – 1.000</small></td>",
        // Of three candidates, one is right.
        "a guess</th><td>0.333</td>",
        "<td>0.125<small></small></td>",
        "optimistic",
    ] {
        assert!(html.contains(part), "no {part:?}");
    }
}

#[test]
fn a_page_loads_nothing() {
    let html = report().to_html();
    assert!(
        ["http://", "https://", "src=\"/", "@import", "url("]
            .iter()
            .all(|word| !html.contains(word))
    );
    assert_eq!(
        html.matches("src=\"").count(),
        html.matches("src=\"data:image/png;base64,").count()
    );
}

#[test]
fn numbers_of_the_evaluation_are_on_the_page() {
    let evaluation = evaluation();
    let html = report().to_html();
    let auroc = evaluation.metrics.auroc[0].unwrap();
    assert!(html.contains(&format!("<td><b>{auroc:.3}</b></td>")));
    assert!(
        html.contains("8 volumes") || html.contains("4 volumes of 4 patients"),
        "{html}"
    );
    assert!(html.contains("<strong>Optimistic:</strong>"));
    // The second label is never present: dashes, no curve, and a word that says why.
    assert!(html.contains("one class only") && html.contains("<td><b>–</b></td>"));
    assert!(html.contains("1 min 01 s"));
}

#[test]
fn an_empty_report_is_a_page_with_its_limits() {
    let html = Report {
        title: "Nothing yet".into(),
        ..Report::default()
    }
    .to_html();
    check_markup(&html);
    assert!(
        html.contains("not a medical device")
            && !html.contains("<svg")
            && !html.contains("<figure")
    );
    assert_eq!(html.matches("<h2>").count(), 1);
}

#[test]
fn writing_replaces_the_old_report_and_leaves_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.html");
    std::fs::write(&path, "old").unwrap();
    report().write(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), report().to_html());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);

    // A folder in the way: the message names the file and nothing half-written stays.
    let blocked = folder.path().join("blocked");
    std::fs::create_dir_all(blocked.join("inside")).unwrap();
    let error = report().write(&blocked).unwrap_err().to_string();
    assert!(
        error.contains("cannot write") && error.contains("blocked"),
        "{error}"
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// A comparison that is hostile wherever text comes in.
fn comparison_report() -> ComparisonReport {
    use crate::compare::tests::{comparison, entry};
    let text = HOSTILE.to_owned();
    let mut entries = vec![entry("vit:naive", 6), entry("dcformer:nano", 0)];
    for entry in &mut entries {
        entry.measured.answers.names = vec![text.clone()];
        entry.trained.simd.clone_from(&text);
    }
    let mut comparison = comparison(entries);
    comparison.failures[0].reason.clone_from(&text);
    ComparisonReport {
        title: text.clone(),
        summary: text.clone(),
        command: text.clone(),
        comparison,
        training: vec![report().training; 2],
        facts: report().facts,
        configuration: text.clone(),
        limits: vec![text],
    }
}

#[test]
fn the_page_of_a_comparison_is_well_formed_and_loads_nothing() {
    let html = comparison_report().to_html();
    check_markup(&html);
    assert!(!html.contains("<script") && !html.contains("NaN") && !html.contains("inf\""));
    assert!(
        ["http://", "https://", "src=", "@import", "url("]
            .iter()
            .all(|word| !html.contains(word))
    );
    // Title, heading, summary, command, failure, abnormality, instruction set, two facts, configuration, limit.
    assert!(html.matches("&lt;script&gt;").count() >= 10);
}

#[test]
fn numbers_of_the_comparison_are_on_its_page() {
    let html = comparison_report().to_html();
    assert!(html.contains("<b>dcformer nano</b> is ahead with a mean AUROC of <b>1.000</b>"));
    assert!(html.contains("The difference to vit naive is more than the choice of patients"));
    // The difference both ways, each in its colour.
    assert!(html.contains("<td class=\"above\">+0.500<small>"));
    assert!(html.contains("<td class=\"below\">−0.500<small>"));
    assert!(html.contains("<td>12.5</td><td>–</td><td>4.00</td><td>700</td>"));
    assert!(html.contains("12 volumes of 12 patients"));
    // A guess among 12 pairs.
    assert!(html.contains("<td>0.083</td><td>0.417</td><td>0.833</td>"));
    assert_eq!(html.matches("<circle class=\"bubble").count(), 3 * 2);
}

#[test]
fn encoders_that_cannot_be_told_apart_are_named() {
    use crate::compare::tests::{comparison, entry};
    let mut report = comparison_report();
    report.comparison = comparison(vec![entry("vit:naive", 1), entry("dcformer:nano", 1)]);
    let html = report.to_html();
    let same = |name| format!("The difference to {name} is no more than the choice");
    let named = ["dcformer nano", "vit naive"].map(|name| html.contains(&same(name)));
    assert_eq!(named.iter().filter(|found| **found).count(), 1);
    assert!(html.contains("<td class=\"unsure\">+0.000"));
}
