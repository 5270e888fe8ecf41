//! One volume of a report: its slices, what the model says and what the radiologist wrote.

use std::fmt::Write;

use super::html::escape;
use super::picture::Picture;

/// Findings shown at once; the others can be unfolded.
const SHOWN: usize = 8;

/// A volume with its answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Case {
    /// Name of the volume.
    pub name: String,
    /// Why it is shown: "Pleural effusion found".
    pub headline: String,
    /// Whether the headline is about a right or a wrong answer.
    pub verdict: Verdict,
    /// Slices, side by side.
    pub pictures: Vec<Picture>,
    /// What the model says of each abnormality.
    pub findings: Vec<CaseFinding>,
    /// What the radiologist wrote.
    pub report: Option<String>,
}

/// Is the answer right?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As the label says.
    Right,
    /// Against the label.
    Wrong,
}

/// Probability of one abnormality in one volume.
#[derive(Clone, Debug, PartialEq)]
pub struct CaseFinding {
    /// Name of the abnormality.
    pub name: String,
    /// Score of the model.
    pub probability: f64,
    /// Whether the score counts as "present".
    pub said_present: bool,
    /// What the label says, if there is one.
    pub present: Option<bool>,
}

impl CaseFinding {
    fn verdict(&self) -> Option<Verdict> {
        let right = self.said_present == self.present?;
        Some(if right {
            Verdict::Right
        } else {
            Verdict::Wrong
        })
    }
}

/// The card of a case.
pub(super) fn render(case: &Case) -> String {
    let (class, word) = match case.verdict {
        Verdict::Right => ("right", "right"),
        Verdict::Wrong => ("wrong", "wrong"),
    };
    let mut html = format!(
        "<article class=\"case {class}\"><h3><span class=\"verdict\">{word}</span> {}</h3><p class=\"name\">{}</p>",
        escape(&case.headline),
        escape(&case.name)
    );
    if !case.pictures.is_empty() {
        html.push_str("<div class=\"views\">");
        case.pictures
            .iter()
            .for_each(|picture| html.push_str(&picture.figure()));
        html.push_str("</div>");
    }
    html.push_str(&render_findings(&case.findings));
    if let Some(report) = &case.report {
        let _ = write!(
            html,
            "<blockquote><span>Report</span>{}</blockquote>",
            escape(report)
        );
    }
    html + "</article>"
}

/// The most probable findings and every one that is present or wrong, then the others folded away.
fn render_findings(findings: &[CaseFinding]) -> String {
    let mut sorted: Vec<&CaseFinding> = findings.iter().collect();
    sorted.sort_by(|a, b| b.probability.total_cmp(&a.probability));
    let telling = |finding: &&&CaseFinding| {
        finding.present == Some(true) || finding.verdict() == Some(Verdict::Wrong)
    };
    // Wrong and present ones come first into the list, the most probable fill it up, and all stay sorted.
    let room = SHOWN.saturating_sub(sorted.iter().filter(telling).count());
    let mut filled = 0;
    let (shown, folded): (Vec<_>, Vec<_>) = sorted.into_iter().partition(|finding| {
        let keep = telling(&finding) || filled < room;
        filled += usize::from(keep && !telling(&finding));
        keep
    });
    if shown.is_empty() {
        return String::new();
    }
    let list = |findings: &[&CaseFinding]| {
        format!(
            "<ul class=\"findings\">{}</ul>",
            findings
                .iter()
                .map(|finding| bar(finding))
                .collect::<String>()
        )
    };
    let mut html = list(&shown);
    if !folded.is_empty() {
        let _ = write!(
            html,
            "<details><summary>{} more</summary>{}</details>",
            folded.len(),
            list(&folded)
        );
    }
    html
}

fn bar(finding: &CaseFinding) -> String {
    let (class, mark) = match finding.verdict() {
        Some(Verdict::Right) => ("right", "✓"),
        Some(Verdict::Wrong) => ("wrong", "✗"),
        None => ("unknown", ""),
    };
    let truth = match finding.present {
        Some(true) => "present",
        Some(false) => "absent",
        None => "not labelled",
    };
    let probability = finding.probability.clamp(0.0, 1.0);
    format!(
        "<li class=\"{class}\"><span class=\"what\">{}</span><span class=\"track\"><i style=\"width:{:.1}%\"></i></span>\
         <span class=\"value\">{probability:.2}</span><span class=\"truth\">{mark} {truth}</span></li>",
        escape(&finding.name),
        probability * 100.0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &str, probability: f64, present: bool) -> CaseFinding {
        CaseFinding {
            name: name.into(),
            probability,
            said_present: probability > 0.5,
            present: Some(present),
        }
    }

    #[test]
    fn what_is_present_or_wrong_is_never_folded_away() {
        let mut findings: Vec<_> = (0..17)
            .map(|index| finding(&format!("f{index}."), 0.1 + f64::from(index) / 100.0, false))
            .collect();
        findings.push(finding("missed.", 0.01, true));
        findings.push(finding("false alarm.", 0.9, false));
        let html = render_findings(&findings);
        let (shown, folded) = html.split_once("<details>").unwrap();
        let names: Vec<&str> = shown
            .split("what\">")
            .skip(1)
            .map(|item| item.split('.').next().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "false alarm",
                "f16",
                "f15",
                "f14",
                "f13",
                "f12",
                "f11",
                "missed"
            ]
        );
        assert_eq!(folded.matches("<li").count(), 11);
        assert!(folded.starts_with("<summary>11 more<"));
    }

    #[test]
    fn an_unlabelled_finding_is_neither_right_nor_wrong() {
        let html = bar(&CaseFinding {
            present: None,
            ..finding("<x>", 7.0, false)
        });
        assert!(
            html.contains("class=\"unknown\"")
                && html.contains("&lt;x&gt;")
                && html.contains("width:100.0%"),
            "{html}"
        );
    }
}
