//! Text and numbers as HTML.

/// `text` with the characters that mean something in HTML and SVG replaced, safe between tags and in quotes.
///
/// Control characters that no HTML file may hold become the replacement character.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// Three decimals, or a dash for a number that is not defined.
pub(super) fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "–".into(), |value| format!("{value:.3}"))
}

/// "1 volume", "2 volumes".
pub(super) fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{} {noun}{ending}", thousands(number))
}

/// Digits in groups of three.
pub(super) fn thousands(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// "0.42 s", "41 s", "3 min 05 s", "2 h 10 min".
pub(super) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..=9 => format!("{seconds:.2} s"),
        10..=59 => format!("{whole} s"),
        60..=3599 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(
            escape("<b a='1' c=\"2\">&\u{1}\n"),
            "&lt;b a=&#39;1&#39; c=&quot;2&quot;&gt;&amp;\u{fffd}\n"
        );
    }

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!([number(Some(0.8764)), number(None)], ["0.876", "–"]);
        assert_eq!(
            [
                count(1, "volume"),
                count(50_188, "volume"),
                count(999, "patient")
            ],
            ["1 volume", "50,188 volumes", "999 patients"]
        );
        let durations = [0.417, 9.4, 9.6, 59.4, 59.6, 185.0, 7800.0].map(duration);
        assert_eq!(
            durations,
            [
                "0.42 s",
                "9.40 s",
                "10 s",
                "59 s",
                "1 min 00 s",
                "3 min 05 s",
                "2 h 10 min"
            ]
        );
    }
}
